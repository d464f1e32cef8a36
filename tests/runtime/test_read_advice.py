"""What a user is told of reads of rows that cost a session its gain."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.lazy.tensor import resolved
from tests.loops.loops import words
from tests.runtime.telling import MASK, made, most_anew, told


def test_a_session_that_reads_everything_is_told_which_line_does() -> None:
    (message,) = told(made(), lambda model, ids, _: model(ids)[torch.ones_like(ids, dtype=torch.bool)])
    assert message.startswith("100% of the rows of Words.forward were computed in 12 calls")
    assert "reads nearly every row at test_read_advice.py:" in message


def by_sample(ids: Tensor, number: int) -> list[Tensor]:
    """Other rows of each sample, and in each step."""
    return [torch.arange(8, 10) + 2 * (number + own) for own in range(len(ids))]


def test_rows_that_are_read_sample_by_sample_are_told_of() -> None:
    def step(model: Any, ids: Tensor, number: int) -> Tensor:
        logits = model(ids)
        first = resolved(logits[0, by_sample(ids, number)[0]])
        return torch.stack([first, resolved(logits[1, by_sample(ids, number)[1]])])

    (message,) = told(made(), step)
    line = step.__code__.co_firstlineno
    assert message.startswith("Words.forward ran 21 times in 12 calls: ")
    assert (
        f"rows of its result are read at test_read_advice.py:{line + 2}, and the step runs again for others, read at"
        in message
    )
    assert f"read at test_read_advice.py:{line + 3}. Read all at once" in message


def test_rows_that_are_read_at_once_are_no_news() -> None:
    def step(model: Any, ids: Tensor, number: int) -> Tensor:
        return model(ids).gather(1, torch.stack(by_sample(ids, number))[..., None].expand(-1, -1, 3))

    assert told(made(), step) == []


def test_rows_that_a_query_leaves_out_are_told_of() -> None:
    def query(ids: Tensor) -> Tensor:
        return torch.zeros_like(ids, dtype=torch.bool).index_fill(1, torch.tensor([3]), True)

    def step(model: Any, ids: Tensor, number: int) -> Tensor:
        logits, (first, second) = model(ids), by_sample(ids, number)
        return torch.cat([resolved(logits[:, first]), resolved(logits[:, second + 8])], 1)

    (message,) = told(made(), step, query=query)
    line = step.__code__.co_firstlineno
    assert f"query= names some of the rows that are read, called at test_read_advice.py:{line + 1}, and" in message
    assert f"for those that are read at test_read_advice.py:{line + 2}. Let it name these too" in message


def test_rows_for_which_a_bound_had_no_room_are_no_news() -> None:
    def step(model: Any, ids: Tensor, number: int) -> Tensor:
        logits = model(ids)
        kept = resolved(logits[ids == MASK])[:4]
        return torch.cat([kept, *(resolved(logits[own, rows]) for own, rows in enumerate(by_sample(ids, number)))])

    bounded = SelectiveRefresh(0.05, queried=0.1)
    assert not any("the step runs again" in own for own in told(made(), step, refresh=bounded))


def test_rows_of_some_samples_alone_are_told_of() -> None:
    def step(model: Any, ids: Tensor, _: int) -> Tensor:
        rows = torch.zeros_like(ids, dtype=torch.bool)
        rows[1], rows[0, :4] = True, True
        return model(ids)[rows]

    (message,) = told(made(), step)
    assert "the loop asks, at test_read_advice.py:" in message
    assert "for nearly every row of sample 1 of 2 and for fewer of the others" in message
    assert "of both halves" in message


def halves(ids: Tensor) -> Tensor:
    """Words, and behind them the unguided half, of which nothing is known."""
    return torch.cat([ids, torch.full_like(ids, MASK)])


def guided(model: Any, ids: Tensor, _: int) -> Tensor:
    some, none = model(halves(ids)).chunk(2)
    return (some + 2 * (some - none))[ids == MASK]


def test_a_query_that_asks_for_a_whole_half_is_named_with_its_samples() -> None:
    (message,) = told(made(), guided, prompt=32, query=lambda ids: ids == MASK)
    assert message.startswith("100% of the rows of Words.forward were computed in 12 calls")
    assert "query= asks, called at test_read_advice.py:" in message
    assert "for nearly every row of samples 2, 3 of 4 and for fewer of the others" in message
    assert "as in mask.chunk(2)[0].repeat(2, 1)" in message


def test_a_query_for_the_same_rows_of_both_halves_gains_without_a_word() -> None:
    assert not told(made(), guided, prompt=32, query=lambda ids: (ids == MASK).chunk(2)[0].repeat(2, 1))


def test_where_a_query_asks_for_few_rows_the_line_that_reads_nearly_all_is_named() -> None:
    (message,) = told(made(), lambda model, ids, _: model(ids)[ids >= 0], query=lambda ids: ids.cumsum(1) < 10 * MASK)
    assert "the loop reads nearly every row at test_read_advice.py:" in message
    assert "query=" not in message


def test_a_query_that_asks_for_every_row_is_named() -> None:
    (message,) = told(made(), guided, query=lambda ids: ids >= 0)
    assert "query= asks for nearly every row in 9 of them, called at test_read_advice.py:" in message


@torch.no_grad()
def test_the_report_tells_rows_by_sample_and_that_a_query_asked_for_them() -> None:
    optimized, ids = marche_fx.transform(made(), query=lambda ids: ids == MASK, compile=False), words()
    with marche_fx.decoding(optimized):
        for number in range(3):
            guided(optimized, ids, number)
    session = marche_fx.report(optimized).session
    assert session is not None
    by_query = {rows for own in session.causes for line, rows, _ in own.reads if line.endswith(", by query")}
    assert by_query == {(56, 56, 64, 64)}
    assert {rows for own in session.causes for _, rows, _ in own.reads} - by_query == {(56, 56, 56, 56)}
    assert "by query" in str(session)
    assert "56 56 64 64" in str(session)


def test_where_a_policy_bounds_what_is_read_no_other_bound_is_advised() -> None:
    def every_row(model: Any, ids: Tensor, number: int) -> Tensor:
        return most_anew(lambda ids: model(ids)[ids >= 0][None], ids, number)

    (message,) = told(made(), every_row, refresh=SelectiveRefresh(0.05, queried=0.1))
    assert "the loop reads" not in message
    assert "had changed half of them or more" in message


def test_a_result_read_whole_is_told_how_to_ask_for_rows() -> None:
    messages = told(made(), lambda model, ids, _: model(ids).softmax(-1))
    assert "returns the tokens whose results are read, a bool mask (2, 64) (64 tokens)" in messages[0]

"""What a user is told of results that are read as a whole, by a check, or later."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx import SelectiveRefresh
from tests.around import EAGER, Around, X
from tests.loops import models
from tests.runtime.telling import MASK, made, told


def drawn(model: Any, ids: Tensor, number: int) -> Tensor:
    """Pieces for all masked tokens, drawn from what PyTorch checks to be a distribution."""
    pieces = torch.distributions.Categorical(logits=model(ids)).sample()
    return pieces[ids == MASK]


@pytest.fixture(params=[True, False])
def checks(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether torch.distributions checks what a loop draws from; whoever loads the compiler has no checks otherwise."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(request.param)
    yield request.param
    torch.distributions.Distribution.set_default_validate_args(before)


def test_a_check_of_a_distribution_changes_nothing_that_is_said(checks: bool) -> None:
    assert not told(made(), drawn, prompt=0, steps=8)


def test_a_check_is_named_where_the_rows_that_are_drawn_behind_it_are_others_in_every_call(checks: bool) -> None:
    def by_turns(model: Any, ids: Tensor, number: int) -> Tensor:
        pieces = torch.distributions.Categorical(logits=model(ids)).sample()
        return pieces[:, number % 3 :: 3]

    found = told(made(), by_turns, steps=8)
    assert len(found) == checks
    if checks:
        assert "Words.forward ran again for rows of its result that are read at telling.py:" in found[0]
        assert "set_default_validate_args(False)" in found[0]


def test_a_check_of_what_was_read_as_a_whole_before_is_not_told_of(checks: bool) -> None:
    def weighed(model: Any, ids: Tensor, number: int) -> Tensor:
        logits = model(ids)
        return torch.distributions.Categorical(logits=logits * logits.std(1, keepdim=True)).sample()

    (message,) = told(made(), weighed, steps=8)
    assert "a result of Words.forward was read as a whole, and only" in message


def pairs(model: Any, ids: Tensor, number: int) -> Tensor:
    """Two pieces a token, drawn of a distribution of each: tokens and pieces become one dimension there."""
    logits = model(ids).unflatten(-1, (2, -1))
    return torch.distributions.Categorical(logits=logits).sample()[ids == MASK]


def test_what_a_distribution_draws_of_a_whole_is_not_taken_for_its_check(checks: bool) -> None:
    (whole,) = told(made(), pairs, steps=8)
    assert "a result of Words.forward was read as a whole, and only" in whole
    assert "Read the rows you need, as in logits[rows], or pass query=" in whole
    assert "torch.distributions" not in whole


def test_a_whole_that_is_read_after_rows_of_it_is_told_of_where_it_has_old_ones() -> None:
    def entropy(model: Any, ids: Tensor, number: int) -> Tensor:
        logits = model(ids)
        chosen = logits[:, 8:12] * 1
        return chosen + logits.logsumexp(-1).sum(1)[:, None, None]

    (message,) = told(made(), entropy, refresh=SelectiveRefresh(0.1, warmup=1))
    assert "a result of Words.forward was read as a whole, and only" in message
    query = (torch.arange(models.N) // 4 == 2).expand(2, -1)
    assert not told(made(), entropy, refresh=SelectiveRefresh(0.1, warmup=1), query=lambda ids, **_: query)
    assert not told(made(), entropy, refresh="exact")


def test_what_a_loop_keeps_is_told_of_where_it_is_read() -> None:
    kept: list[Tensor] = []

    def keeping(model: Any, ids: Tensor, number: int) -> Tensor:
        pieces = model(ids).argmax(-1)
        kept.append(pieces.clone())
        return pieces[:, 8:12] * 1

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert not told(made(), keeping, steps=8)
        kept[0].sum()
        assert not found, "all tokens ran in the first call"
        kept[-3].sum()
        kept[-2].sum()
    (message,) = found
    assert "a result of Words.forward was read as a whole, and only" in str(message.message)
    assert message.filename == __file__


def test_a_whole_that_rows_are_computed_through_is_told_of_no_more_than_they_are() -> None:
    def banned(model: Any, ids: Tensor, number: int) -> Tensor:
        logits = model(ids)
        logits.index_fill_(-1, torch.tensor([5]), -torch.inf)
        return logits[ids == MASK][:, 5] * 1

    assert not told(made(), banned, steps=8, refresh=SelectiveRefresh(0.1, warmup=1))


@pytest.mark.filterwarnings("error")
def test_what_is_computed_of_other_arguments_than_tokens_is_there_and_reads_no_rows() -> None:
    def forward(model: Any, x: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        return model.inner(x), shown.sum(1)

    model, x, shown = Around(forward), X.clone(), torch.ones(2, 20)
    optimized = marche_fx.transform(model, refresh=EAGER, compile=False)
    with torch.no_grad(), marche_fx.decoding(optimized):
        for row in range(4):
            x[:, row] += 1
            shown[:, row] = 0
            y, count = optimized(x, shown)
            assert torch.equal(count, shown.sum(1))
            # A copy of its own, as the next call may give the same again.
            count.zero_()
            y[:, row].clone()
            assert torch.equal(optimized(x, shown)[1], shown.sum(1))
    session = marche_fx.report(optimized).session
    assert session is not None
    assert all(rows is not None for cause in session.causes for _, rows, _ in cause.reads)

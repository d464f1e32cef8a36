"""A bound on the queried: of the tokens that a loop reads only some are computed, and reports tell of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import (
    History,
    NeighbourRefresh,
    RandomRefresh,
    Refresh,
    RefreshPolicy,
    ResultConfidence,
    StalenessRefresh,
)
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.runtime.choose import BUCKET
from tests.generated.choose import numbered_recipe
from tests.generated.loops import check_loop, numbered_loop
from tests.networks import Transformer
from tests.program import oracle_of
from tests.sessions import positions, records, steps

N, ROOM = 24, 6
QUARTER = ROOM / N


def model() -> nn.Module:
    torch.manual_seed(0)
    return Transformer(N, 16, 2, depth=2).eval()


@torch.no_grad()
def run(policy: RefreshPolicy, read: Callable[[Tensor], Any], count: int = 8) -> tuple[nn.Module, list[Any]]:
    """A session and what ``read`` took of each result; two tokens are replaced in each step."""
    optimized = marche_fx.transform(model(), refresh=policy, compile=False, verify=False)
    with marche_fx.decoding(optimized):
        return optimized, [read(optimized(x)) for x in steps(count)]


def every_row(z: Tensor) -> Tensor:
    return resolved(z[torch.ones(2, N, dtype=torch.bool)]).clone()


def test_of_the_tokens_that_are_read_those_with_the_highest_priority_run() -> None:
    optimized, _ = run(StalenessRefresh(0.0, warmup=1, queried=QUARTER), every_row)
    first, *partial = records(optimized)
    assert first.computed is not None
    assert first.computed.all()
    for record in partial:
        assert record.counts == (BUCKET,), "two that changed and six that are read"
        assert record.computed is not None
        assert record.computed.sum(1).tolist() == [BUCKET, BUCKET]
    # Of the oldest six in each step: after four steps each of the others had its turn.
    turns = torch.stack([record.computed for record in partial[:4] if record.computed is not None])
    assert turns.any(0).all()


def test_results_of_refreshed_tokens_are_computed_where_they_are_read() -> None:
    class Refreshed(RefreshPolicy):
        def choose(self, history: History) -> Refresh:
            turn = torch.zeros(history.age.shape).index_fill(1, torch.arange(12, 20), 1.0)
            return Refresh(history.tokens if history.step == 0 else 8, turn, queried=0)

    optimized, _ = run(Refreshed(), every_row, count=3)
    for record in records(optimized)[1:]:
        assert record.computed is not None
        assert record.computed[:, 12:20].all()
        assert record.counts == (16,), "two that changed, in whose bucket there is room for more, and eight"


@torch.no_grad()
def test_a_late_result_that_outlives_its_session_has_what_it_holds_computed_alone() -> None:
    optimized = marche_fx.transform(model(), refresh=RandomRefresh(0.5, warmup=1), compile=False, verify=False)
    with marche_fx.decoding(optimized):
        for x in steps(3):
            resolved(optimized(x)[:, 5:6])
        mask = torch.arange(N) == 5
        kept = torch.where(mask[:, None], optimized(steps(4)[-1]), 0.0)
    assert [record.active for record in records(optimized)] == [N, 16, 16, 16]
    assert resolved(kept)[:, 5].any()


def test_without_a_bound_all_of_them_run() -> None:
    optimized, _ = run(StalenessRefresh(0.0, warmup=1), every_row)
    assert all(record.computed is not None and record.computed.all() for record in records(optimized))


@torch.no_grad()
def test_what_is_read_is_what_was_last_computed() -> None:
    optimized, found = run(RandomRefresh(0.1, warmup=1, queried=QUARTER), every_row)
    (program,) = optimization_of(optimized).steps["forward"].programs
    oracle = oracle_of(program.plan, model())
    for x, record, own in zip(steps(8), records(optimized), found, strict=True):
        (expected,) = oracle.step([x], positions(record), record.computed)
        torch.testing.assert_close(own, expected.flatten(0, 1))


def test_the_few_rows_that_a_loop_is_about_to_keep_are_computed_after_all() -> None:
    computed: list[Tensor] = []

    def read(z: Tensor) -> None:
        every_row(z)
        few = torch.zeros(2, N, dtype=torch.bool)
        few[:, -ROOM:] = True
        resolved(z[few])
        many = torch.zeros(2, N, dtype=torch.bool)
        many[:, :-ROOM] = True
        resolved(z[many])

    optimized, _ = run(RandomRefresh(0.0, warmup=1, queried=QUARTER), read, count=4)
    for record in records(optimized):
        assert record.computed is not None
        computed.append(record.computed)
    again = [record for record in records(optimized) if record.again]
    assert len(again) == 3, "in each partial step for the few alone"
    assert [record.counts for record in again] == [(BUCKET,)] * 3
    for first, second in zip(computed[1::2], computed[2::2]):
        assert (first | second)[:, -ROOM:].all()


def test_rows_that_stay_as_they_were_are_told_of_in_the_report_and_are_no_fault_of_the_loop(
    recwarn: pytest.WarningsRecorder,
) -> None:
    optimized, _ = run(StalenessRefresh(0.0, warmup=1, queried=QUARTER), every_row)
    session = marche_fx.report(optimized).session
    assert session is not None
    first, *partial = session.causes
    assert first.spared == (0, 0)
    assert [rows for rows, _ in (own.spared for own in partial)] == [2 * (N - BUCKET)] * 7
    assert max(age for _, age in (own.spared for own in partial)) == 3
    assert "224 rows read as they were, up to 3 steps old, since the policy bounds the queried" in session.verdict
    assert "read rows at most 0 steps old" in session.verdict
    assert session.to_dict()["causes"][1]["spared"] == [2 * (N - BUCKET), 1]
    assert not [own for own in recwarn if "had been computed" in str(own.message)]


def test_a_query_is_bounded_too() -> None:
    optimized = marche_fx.transform(
        model(),
        refresh=StalenessRefresh(0.0, warmup=1, queried=QUARTER),
        query=lambda x: torch.ones(x.shape[:2], dtype=torch.bool),
        compile=False,
        verify=False,
    )
    with torch.no_grad(), marche_fx.decoding(optimized):
        for x in steps(4):
            every_row(optimized(x))
    assert [record.counts for record in records(optimized)] == [(N,), (BUCKET,), (BUCKET,), (BUCKET,)]


def test_of_two_policies_at_once_the_bound_of_either_holds() -> None:
    for policy in (
        StalenessRefresh(0.0, warmup=1, queried=QUARTER) + RandomRefresh(0.0, warmup=1),
        RandomRefresh(0.0, warmup=1) + StalenessRefresh(0.0, warmup=1, queried=QUARTER),
    ):
        optimized, _ = run(policy, every_row, count=3)
        assert [record.counts for record in records(optimized)] == [(N,), (BUCKET,), (BUCKET,)]


def test_on_a_line_the_neighbours_of_what_changed_are_read_fresh() -> None:
    policy = NeighbourRefresh(0.0, warmup=1, queried=QUARTER, grid="line", radius=1.0)
    optimized, _ = run(policy, every_row, count=3)
    record = records(optimized)[-1]
    # The third step replaces tokens 4 and 5; those next to them are as old as they.
    assert record.computed is not None
    assert record.computed[:, 3:7].all()


class Surest(RefreshPolicy):
    """Computes of the queried tokens those that the result was surest of, or least sure."""

    def __init__(self, of: str, sign: int) -> None:
        self.signals = (ResultConfidence(of),)
        self.sign = sign
        self.seen: list[Tensor] = []

    def choose(self, history: History) -> Refresh:
        confidence = history.latest(self.signals[0])
        if confidence is None:
            return Refresh(history.tokens)
        self.seen.append(confidence)
        return Refresh(0, history.age, queried=ROOM, urgency=self.sign * confidence)


def test_rows_that_are_read_one_after_another_are_bounded_together() -> None:
    def row_by_row(z: Tensor) -> list[Tensor]:
        return [resolved(z[sample, row]).clone() for sample in range(2) for row in range(N)]

    optimized, _ = run(StalenessRefresh(0.0, warmup=1, queried=QUARTER), row_by_row)
    partial = records(optimized)[1:]
    assert [own.counts for own in partial] == [(BUCKET,)] * 7, "each ran once, with room for six beside what changed"
    for record in partial:
        assert record.computed is not None
        assert record.computed.sum(1).tolist() == [BUCKET, BUCKET]


@pytest.mark.parametrize(
    ("of", "by_hand"),
    [
        ("probability", lambda p: p.amax(-1)),
        ("margin", lambda p: p.topk(2).values @ torch.tensor([1.0, -1.0])),
        ("entropy", lambda p: -(p * p.log()).sum(-1)),
    ],
)
@torch.no_grad()
def test_the_confidence_of_a_result_is_measured_where_it_is_computed(
    of: str, by_hand: Callable[[Tensor], Tensor]
) -> None:
    policy = Surest(of, sign=-1)
    optimized, found = run(policy, every_row, count=5)
    for seen, own in zip(policy.seen, found):
        # What a row gave when it was last computed is what is read of it.
        torch.testing.assert_close(seen.flatten(), by_hand(own.softmax(-1)))
    for record, seen in zip(records(optimized)[1:], policy.seen):
        assert record.computed is not None
        least_sure = (-seen).masked_fill(record.reasons == 1, -torch.inf).topk(ROOM, 1).indices
        assert record.computed.gather(1, least_sure).all()


@pytest.mark.parametrize("queried", [-1, 1.5, True])
def test_a_bound_that_is_no_count_is_refused_by_the_name_of_the_policy(queried: Any) -> None:
    class Wrong(RefreshPolicy):
        def choose(self, history: History) -> Refresh:
            return Refresh(0, history.age, queried=queried)

    with pytest.raises(marche_fx.PolicyError, match="Wrong must count the queried tokens to compute as an int"):
        run(Wrong(), every_row, count=1)


def test_a_bound_without_an_order_is_refused() -> None:
    class Wrong(RefreshPolicy):
        def choose(self, history: History) -> Refresh:
            return Refresh(0, queried=4)

    with pytest.raises(marche_fx.PolicyError, match="Wrong computes 4 of the queried tokens and must give an urgency"):
        run(Wrong(), every_row, count=1)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_generated_loops_read_what_was_last_computed(part: int) -> None:
    for number in range(4 * part, 4 * part + 4):
        check_loop(numbered_recipe(6, number), replace(numbered_loop(6, number), policy="bounded"))

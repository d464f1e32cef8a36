"""Variants side by side: what runs when, with which arguments, and what it gives."""

from __future__ import annotations

from contextlib import ExitStack
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marche_fx.bench import Settings, Workload, mar_workload, parse_variants, user_workload
from marche_fx.bench.candidates import Candidate, make_candidates
from marche_fx.bench.lockstep import Entrant, agenda, generate_side_by_side
from marche_fx.bench.turn import TransformerTurn
from marche_fx.bench.warm_up import Preparation, warm_up, warm_up_steps, without_warm_up
from marche_fx.errors import ArgumentError
from marche_fx.refresh import FullRefresh, InterleavedRefresh, SelectiveRefresh, StalenessRefresh
from marche_fx.speed.clock import ProcessorClock
from tests.evaluate.tiny import tiny_garments

CLOCK = ProcessorClock()


SHARES = ("ours:0-eager", "ours:0.25-eager", "ours:0.5-eager", "ours:1-eager", "oldest:0.1-eager")


@cache
def workload() -> Workload:
    return mar_workload(tiny_garments(), 2, 3.0, 6)


@cache
def everyone() -> dict[str, Candidate]:
    """Candidates by label; tests share what was captured, as variants do."""
    words = ("eager", *SHARES, "recap-eager", "fewer:3")
    found = make_candidates(workload(), parse_variants(words, []), Settings(every=2))
    return {own.variant.label: own for own in found}


def candidates_of(*labels: str) -> list[Candidate]:
    return [everyone()[label] for label in labels]


class Counted:
    """A turn that writes down its steps."""

    compilations = 0

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        self.name, self.log = name, log

    def __enter__(self) -> Counted:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.log.append((self.name, -1))

    def step(self, number: int) -> dict[str, float]:
        self.log.append((self.name, number))
        return {"part": 1.0 + number}


def test_variants_take_turns_step_by_step_and_their_times_are_integrated() -> None:
    log: list[tuple[str, int]] = []
    entrants = [
        Entrant(5, (0, 2, 4), lambda: Counted("spread", log)),
        Entrant(5, tuple(range(5)), lambda: Counted("all", log)),
    ]
    found = generate_side_by_side(entrants)
    assert [own.seconds for own in found] == [{"part": 15.0}, {"part": 15.0}]
    assert [own.estimated for own in found] == [own.seconds for own in found]
    steps = [step for _, step in log if step >= 0]
    assert steps == sorted(steps)
    # Who goes first alternates.
    assert log[:2] == [("spread", 0), ("all", 0)]
    assert log[3:5] == [("spread", 2), ("all", 2)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 5))
def test_each_runs_its_own_steps_in_order_and_once(counts: list[int], rotation: int) -> None:
    entrants = [Entrant(count, tuple(range(count)), lambda: Counted("", [])) for count in counts]
    done = agenda(entrants, rotation)
    for number, count in enumerate(counts):
        assert [step for own, step in done if own == number] == list(range(count))


def test_the_first_to_go_rotates() -> None:
    entrants = [Entrant(2, (0, 1), lambda: Counted("", []))] * 3
    assert [own for own, _ in agenda(entrants, 0)[:3]] == [0, 1, 2]
    assert [own for own, _ in agenda(entrants, 1)[:3]] == [1, 2, 0]


def test_full_refresh_gives_what_the_original_gives_in_every_step() -> None:
    eager, full, partial = candidates_of("eager", "ours-eager 100%", "ours-eager 25%")
    differs = []
    with ExitStack() as stack:
        turns = [stack.enter_context(TransformerTurn(own, CLOCK)) for own in (eager, full, partial)]
        for number in range(6):
            for turn in turns:
                assert set(turn.step(number)) == {"encoder", "decoder"}
            (exact,), (same,), (cached,) = (turn.read for turn in turns)
            assert len(exact) == eager.workload.steps[number].read
            torch.testing.assert_close(same, exact, rtol=1e-5, atol=1e-6)
            differs.append(not torch.allclose(cached, exact, rtol=1e-5, atol=1e-6))
    # The first steps of a partial refresh are in full; later ones reuse rows.
    assert not any(differs[:3])
    assert any(differs[3:])


def test_variants_that_share_a_model_keep_their_sessions_apart() -> None:
    small, large = candidates_of("ours-eager 0%", "ours-eager 50%")
    assert small.model is large.model
    alone = []
    for own in (small, large):
        with TransformerTurn(own, CLOCK) as turn:
            for number in range(6):
                turn.step(number)
        alone.append([(record.name, record.counts) for record in turn.records])
    with TransformerTurn(small, CLOCK) as one, TransformerTurn(large, CLOCK) as other:
        for number in range(6):
            one.step(number)
            other.step(number)
    together = [[(record.name, record.counts) for record in turn.records] for turn in (one, other)]
    assert together == alone
    assert alone[0] != alone[1]


def test_only_variants_of_the_same_measurements_share_a_model() -> None:
    ours, more, oldest, full, recap, eager = candidates_of(
        *("ours-eager 25%", "ours-eager 50%", "oldest-eager 10%", "ours-eager 100%", "recap-eager", "eager")
    )
    assert ours.model is more.model
    assert ours.model is not oldest.model
    assert oldest.model is full.model is recap.model
    assert eager.model is eager.workload.model


def test_what_has_state_runs_at_every_step() -> None:
    eager, full, ours, fewer = candidates_of("eager", "ours-eager 100%", "ours-eager 25%", "fewer:3")
    assert eager.timed == full.timed == (0, 2, 4, 5)
    assert ours.timed == tuple(range(6))
    assert (fewer.count, fewer.timed) == (3, (0, 2))
    everything = make_candidates(workload(), parse_variants(["eager", "fewer:3"], []), Settings(all_steps=True))
    assert [own.timed for own in everything] == [tuple(range(6)), tuple(range(3))]


def test_caches_are_counted_and_freed() -> None:
    eager, ours = candidates_of("eager", "ours-eager 25%")
    with TransformerTurn(ours, CLOCK) as turn:
        turn.step(0)
    assert turn.cache_bytes is not None
    # Keys and values of two sites at least, 4 samples of 18 tokens, width 16, float32.
    assert turn.cache_bytes >= 2 * 2 * 4 * 18 * 16 * 4
    assert turn.session is not None
    assert not turn.session.states
    with TransformerTurn(eager, CLOCK) as turn:
        turn.step(0)
    assert turn.cache_bytes is None


def test_warming_up_leaves_nothing_behind() -> None:
    (ours,) = make_candidates(workload(), parse_variants(["ours:0.1-eager"], []), Settings())
    known: dict[int, Preparation] = {}
    first, again = (warm_up(ours, CLOCK, known) for _ in range(2))
    assert first.preparation is again.preparation
    assert first.preparation.seconds > 0
    assert first.preparation.compilations == 0
    with TransformerTurn(ours, CLOCK) as turn:
        turn.step(0)
    assert [record.active for record in turn.records] == [2, 18]


def test_warm_up_has_full_and_partial_steps() -> None:
    (ours,) = candidates_of("ours-eager 25%")
    assert list(warm_up_steps(ours.workload)) == [0, 1, 4, 5]
    with TransformerTurn(ours, CLOCK, without_warm_up(ours.policies)) as turn:
        for number in warm_up_steps(ours.workload):
            turn.step(number)
    decoder = [record.active for record in turn.records if record.name == "forward_mae_decoder"]
    assert decoder[0] == 18
    assert min(decoder) < 18


def test_without_warm_up_what_was_shared_is_still_shared() -> None:
    policy, other = SelectiveRefresh(0.1), InterleavedRefresh(2)
    found = without_warm_up({"one": policy, "two": policy, "three": other})
    assert found["one"] is found["two"]
    assert found == {
        **dict.fromkeys(("one", "two"), SelectiveRefresh(0.1, warmup=0)),
        "three": InterleavedRefresh(2, warmup=0),
    }
    both = without_warm_up({"one": SelectiveRefresh(0.1) + StalenessRefresh(0.2)})["one"]
    assert both == SelectiveRefresh(0.1, warmup=0) + StalenessRefresh(0.2, warmup=0)
    assert without_warm_up({"one": FullRefresh()}) == {"one": FullRefresh()}


@pytest.mark.parametrize(
    ("word", "message"),
    [("fewer:4", "fewer:4 needs a model whose schedule is known"), ("lazymar", "is a schedule for")],
)
def test_what_a_users_model_cannot_do_is_refused(word: str, message: str) -> None:
    work = user_workload("tests.bench.models:text")
    with pytest.raises(ArgumentError, match=message):
        make_candidates(work, parse_variants([word], []), Settings())

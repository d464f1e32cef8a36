"""Refresh policies."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import marche_fx
from marche_fx import (
    AdaptiveBudget,
    ArgumentError,
    AttentionReceived,
    Both,
    BudgetedRefresh,
    CheckpointError,
    CosineBudget,
    DriftRefresh,
    FullRefresh,
    History,
    InputDrift,
    InterleavedRefresh,
    NeighbourRefresh,
    PolicyError,
    RandomRefresh,
    RefreshPolicy,
    SelectiveRefresh,
    StalenessRefresh,
    ValueDrift,
    load_policy,
    save_policy,
)
from marche_fx.api.options import policies_of
from marche_fx.refresh import PRESETS, preset
from marche_fx.refresh.budget import share_of
from marche_fx.refresh.history import SMOOTHING

FIRST = AttentionReceived(4)


def history(step: int = 9) -> History:
    return History(age=torch.tensor([[1.0, 4.0, 2.0, 1.0]]), step=step)


def priority(policy: RefreshPolicy, state: History) -> list[float]:
    found = policy.choose(state).priority
    assert found is not None
    return found[0].tolist()


# ------------------------------------------------------------------------------------------------------- signals


def test_selective_refresh_takes_attention_times_age() -> None:
    state = history()
    state.observe(FIRST, torch.tensor([[0.4, 0.2, 0.3, 0.1]]))
    assert SelectiveRefresh(fraction=0.5).choose(state).count == 2
    assert priority(SelectiveRefresh(fraction=0.5), state) == pytest.approx([0.4, 0.8, 0.6, 0.1])


def test_without_age_it_takes_the_last_attention_alone() -> None:
    state = history()
    state.observe(FIRST, torch.tensor([[0.7, 0.1, 0.1, 0.1]]))
    state.observe(FIRST, torch.tensor([[0.4, 0.2, 0.3, 0.1]]))
    assert priority(SelectiveRefresh(0.5, age=False), state) == pytest.approx([0.4, 0.2, 0.3, 0.1])


def test_a_signal_is_smoothed_over_steps() -> None:
    state = history()
    state.observe(FIRST, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    state.observe(FIRST, torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    smooth = state.smoothed(FIRST)
    assert smooth is not None
    assert smooth.tolist() == [pytest.approx([1 - SMOOTHING, SMOOTHING, 0, 0])]


def test_a_token_that_was_not_measured_keeps_what_was() -> None:
    state, drift = history(), ValueDrift()
    state.observe(drift, torch.tensor([[math.nan, 0.5, 1.0, math.nan]]))
    state.observe(drift, torch.tensor([[0.2, math.nan, 2.0, math.nan]]))
    latest, smooth = state.latest(drift), state.smoothed(drift)
    assert latest is not None
    assert smooth is not None
    assert latest.tolist() == [pytest.approx([0.2, 0.5, 2.0, 0.0])]
    assert smooth.tolist() == [pytest.approx([0.2 * SMOOTHING, 0.5, 1.0 + SMOOTHING, 0.0])]


@pytest.mark.parametrize("policy", [SelectiveRefresh(0.5), DriftRefresh(0.5), StalenessRefresh(0.5)])
def test_before_anything_was_measured_the_oldest_come_first(policy: RefreshPolicy) -> None:
    assert priority(policy, history()) == [1.0, 4.0, 2.0, 1.0]


def test_drift_is_multiplied_by_age_unless_it_is_of_this_step() -> None:
    state = history()
    state.observe(ValueDrift(), torch.tensor([[0.4, 0.2, 0.3, 0.1]]))
    state.observe(InputDrift(), torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
    assert priority(DriftRefresh(0.5), state) == pytest.approx([0.4, 0.8, 0.6, 0.1])
    assert priority(DriftRefresh(0.5, exact_sites=2), state) == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_where_the_first_sites_are_exact_the_budget_alone_decides() -> None:
    assert DriftRefresh(0.1).tolerance == 0.1
    assert DriftRefresh(0.1, exact_sites=2).tolerance == math.inf
    assert DriftRefresh(0.1, exact_sites=2, tolerance=0.5).tolerance == 0.5


def test_random_tokens_differ_by_step_and_seed_and_are_repeatable() -> None:
    first, again = (priority(RandomRefresh(0.5), history(5)) for _ in range(2))
    assert first == again
    assert first != priority(RandomRefresh(0.5), history(6))
    assert first != priority(RandomRefresh(0.5, seed=1), history(5))


def test_neighbours_of_new_tokens_come_first() -> None:
    # Two class tokens in front of a grid of 3 x 3; the token in its middle is new.
    state = History(age=torch.ones(1, 11), step=9, changed=torch.zeros(1, 11, dtype=torch.bool))
    assert state.changed is not None
    state.changed[0, 2 + 4] = True
    found = priority(NeighbourRefresh(0.5, radius=2.0), state)
    beside, corner, front = math.exp(-1 / 8), math.exp(-2 / 8), math.exp(-1 / 2)
    grid = [corner, beside, corner, beside, 1.0, beside, corner, beside, corner]
    assert found == pytest.approx([front, front, *grid])


def test_a_text_has_neighbours_on_a_line() -> None:
    state = History(age=torch.tensor([[1.0, 1.0, 1.0, 2.0, 1.0]]), step=9, changed=torch.zeros(1, 5, dtype=torch.bool))
    assert state.changed is not None
    state.changed[0, 1] = True
    far = [math.exp(-((distance / 3) ** 2) / 2) for distance in range(4)]
    assert priority(NeighbourRefresh(0.5, grid="line", radius=3.0), state) == pytest.approx(
        [far[1], far[0], far[1], 2 * far[2], far[3]]
    )


def test_where_nothing_is_new_no_neighbour_is_near() -> None:
    state = History(age=torch.ones(1, 9), step=9, changed=torch.zeros(1, 9, dtype=torch.bool))
    assert priority(NeighbourRefresh(0.5, grid=(3, 3)), state) == [0.0] * 9


# --------------------------------------------------------------------------------------------- which steps, how many


@pytest.mark.parametrize(
    ("options", "full_steps"),
    [
        ({"warmup": 2}, [0, 1]),
        ({"warmup": 0}, []),
        ({"warmup": 1, "every": 3}, [0, 3, 6]),
        ({"fraction": 1.0}, list(range(8))),
    ],
)
def test_steps_in_full(options: dict[str, Any], full_steps: list[int]) -> None:
    for kind in (SelectiveRefresh, StalenessRefresh, RandomRefresh, DriftRefresh):
        policy: Any = kind(**options)
        assert [step for step in range(8) if policy.choose(history(step)).count == 4] == full_steps


def test_full_refresh_is_full_in_every_step() -> None:
    assert [FullRefresh().choose(history(step)).count for step in range(3)] == [4, 4, 4]


def test_full_steps_alternate_with_steps_of_nothing() -> None:
    counts = [InterleavedRefresh(period=2, warmup=2).choose(history(step)).count for step in range(7)]
    assert counts == [4, 4, 0, 4, 0, 4, 0]
    assert [InterleavedRefresh(3, 0).choose(history(step)).count for step in range(6)] == [0, 0, 4, 0, 0, 4]


def shares(budget: Any, steps: int) -> list[float]:
    return [share_of(budget, History(torch.ones(1, 10), step=step)) for step in range(steps)]


def test_budgets_follow_their_schedules() -> None:
    assert shares(0.1, 3) == [0.1, 0.1, 0.1]
    assert shares((0.5, 0.2), 4) == [0.5, 0.2, 0.2, 0.2]
    assert shares(lambda step: 1 / (step + 1), 3) == pytest.approx([1, 1 / 2, 1 / 3])
    assert shares(CosineBudget(0.4, 0.0, 4), 6) == pytest.approx(
        [0.4, 0.2 + 0.2 * 0.5**0.5, 0.2, 0.2 - 0.2 * 0.5**0.5, 0, 0]
    )


@given(st.lists(st.floats(0.0, 4.0), min_size=20, max_size=60), st.floats(0.05, 0.3))
def test_an_adaptive_budget_holds_its_mean(drifts: list[float], mean: float) -> None:
    """What a burst of drift takes is given back: the average departs by one gain over all steps."""
    budget = AdaptiveBudget(mean, low=0.0, high=1.0)
    state = History(torch.ones(1, 1000))
    seen: list[float] = []
    for number, drift in enumerate(drifts):
        seen.append(drift)
        state.step, state.mean_drift, state.usual_drift = number, drift, sum(seen) / len(seen)
        state.spent += share_of(budget, state)
        state.partial_steps += 1
    assert state.spent / len(drifts) == pytest.approx(mean, abs=mean / len(drifts) + 1e-6)


def test_an_adaptive_budget_spends_where_drift_is_high() -> None:
    budget = AdaptiveBudget(0.1)
    calm, stirred = (History(torch.ones(1, 10), mean_drift=drift, usual_drift=1.0) for drift in (0.5, 2.0))
    assert share_of(budget, calm) == pytest.approx(0.05)
    assert share_of(budget, stirred) == pytest.approx(0.2)


# -------------------------------------------------------------------------------------------------- two at once


class Ranked(BudgetedRefresh):
    """Priorities given beforehand."""

    def priority(self, history: History) -> Tensor:
        return RANKS[self.fraction]  # type: ignore[index]


RANKS = {0.25: torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 0.5: torch.tensor([[4.0, 3.0, 2.0, 1.0]])}


def test_the_second_of_two_policies_chooses_among_the_rest() -> None:
    choice = (Ranked(0.25) + Ranked(0.5)).choose(history())
    assert choice.count == 3
    assert choice.priority is not None
    # One token by the first, then two by the second.
    assert choice.priority.topk(3).indices.tolist() == [[3, 0, 1]]


def test_two_policies_do_not_count_tokens_that_run_anyway() -> None:
    state = history()
    state.changed = torch.tensor([[False, False, False, True]])
    choice = (Ranked(0.25) + Ranked(0.5)).choose(state)
    assert choice.priority is not None
    assert choice.priority.masked_fill(state.changed, -1).topk(3).indices.tolist() == [[2, 0, 1]]


def test_two_policies_share_what_they_measure() -> None:
    both = SelectiveRefresh(0.1) + DriftRefresh(0.1) + SelectiveRefresh(0.2, tolerance=0.05)
    assert both.signals == (AttentionReceived(4), ValueDrift(1))
    assert both.tolerance == 0.05
    assert (InterleavedRefresh(2, 0) + StalenessRefresh(0.5, warmup=0)).choose(history(1)).count == 4


# ----------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "options",
    [
        {"fraction": -0.1},
        {"fraction": 1.1},
        {"fraction": float("nan")},
        {"fraction": []},
        {"fraction": [0.1, 2.0]},
        {"fraction": "much"},
        {"warmup": -1},
        {"every": 0},
        {"sites": 0},
        {"sites": ()},
        {"tolerance": -1.0},
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        SelectiveRefresh(**options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (InterleavedRefresh, {"period": 0}),
        (InterleavedRefresh, {"warmup": -1}),
        (DriftRefresh, {"exact_sites": -1}),
        (NeighbourRefresh, {"grid": (0, 3)}),
        (NeighbourRefresh, {"grid": "square"}),
        (NeighbourRefresh, {"queried": 1.5}),
        (SelectiveRefresh, {"queried": "all"}),
        (NeighbourRefresh, {"radius": 0.0}),
        (CosineBudget, {"start": 2.0, "end": 0.1, "steps": 3}),
        (CosineBudget, {"steps": 0, "start": 0.2, "end": 0.1}),
        (AdaptiveBudget, {"mean": 0.6}),
        (AdaptiveBudget, {"gain": -1.0, "mean": 0.1}),
    ],
)
def test_arguments_of_the_others_are_checked_too(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        kind(**options)


def test_a_budget_function_that_leaves_its_range_is_refused() -> None:
    with pytest.raises(PolicyError, match=r"step 9 .*0\.\.1, got 3"):
        SelectiveRefresh(lambda step: 3).choose(history())


def test_a_grid_larger_than_the_tokens_is_refused() -> None:
    state = history()
    state.changed = torch.zeros(1, 4, dtype=torch.bool)
    with pytest.raises(ArgumentError, match="grid 3 x 3"):
        NeighbourRefresh(0.5, grid=(3, 3)).choose(state)


# -------------------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize(
    "policy",
    [
        FullRefresh(),
        SelectiveRefresh(0.2, warmup=1, every=5, sites=("blocks.0", "blocks.1"), age=False),
        SelectiveRefresh(CosineBudget(0.3, 0.1, 20)) + StalenessRefresh((0.1, 0.2)),
        DriftRefresh(AdaptiveBudget(0.1), exact_sites=3),
        InterleavedRefresh(3, 4),
        NeighbourRefresh(0.1, grid=(4, 8)),
        NeighbourRefresh(0.1, grid="line", queried=0.2),
        RandomRefresh(0.1, seed=4),
    ],
)
def test_a_policy_survives_saving(policy: RefreshPolicy, tmp_path: Path) -> None:
    save_policy(policy, tmp_path / "policy.json")
    assert load_policy(tmp_path / "policy.json") == policy


def test_a_policy_with_a_function_or_of_ones_own_is_not_saved(tmp_path: Path) -> None:
    for policy in (SelectiveRefresh(lambda step: 0.1), Ranked(0.25)):
        with pytest.raises(ArgumentError, match="only built-in policies"):
            save_policy(policy, tmp_path / "policy.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot read a policy"),
        ('{"kind": "os.system"}', "unknown policy 'os.system'"),
        ('{"kind": "SelectiveRefresh", "fraction": 7}', "fraction must lie"),
        ('{"kind": "SelectiveRefresh", "speed": 7}', "speed"),
        ('{"kind": "CosineBudget", "start": 0.1, "end": 0.1, "steps": 2}', "expected a refresh policy"),
        ("[1]", "expected a refresh policy"),
    ],
)
def test_a_damaged_policy_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_policy(path)
    with pytest.raises(CheckpointError, match="cannot read"):
        load_policy(tmp_path / "missing.json")


def test_what_is_saved_is_plain_json(tmp_path: Path) -> None:
    save_policy(SelectiveRefresh(0.2), tmp_path / "policy.json")
    found = json.loads((tmp_path / "policy.json").read_text())
    assert found["kind"] == "SelectiveRefresh"
    assert found["fraction"] == 0.2
    assert isinstance(load_policy(tmp_path / "policy.json"), SelectiveRefresh)
    assert isinstance(SelectiveRefresh() + FullRefresh(), Both)


def test_a_policy_is_written_by_what_is_not_the_default() -> None:
    assert repr(SelectiveRefresh()) == "SelectiveRefresh()"
    assert repr(SelectiveRefresh(0.2, age=False)) == "SelectiveRefresh(fraction=0.2, age=False)"
    both = StalenessRefresh(CosineBudget(0.3, 0.1, 20)) + FullRefresh()
    assert repr(both) == "StalenessRefresh(fraction=CosineBudget(start=0.3, end=0.1, steps=20)) + FullRefresh()"


# ------------------------------------------------------------------------------------------------------- presets


def test_presets_go_from_exact_to_cheap_and_unknown_ones_are_refused() -> None:
    assert list(PRESETS) == ["exact", "balanced", "fast"]
    assert preset("exact") == FullRefresh()
    with pytest.raises(ArgumentError, match="unknown refresh preset 'cheap'; there are exact, balanced, fast"):
        marche_fx.transform(torch.nn.Linear(2, 2), refresh="cheap")  # type: ignore[arg-type]
    assert policies_of("fast", ["forward"]) == {"forward": PRESETS["fast"]}

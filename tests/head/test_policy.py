"""What of a head is reused: at which timesteps it is computed, and what stands between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import marche_fx
from marche_fx import ArgumentError, CheckpointError, HeadReuse, Hold, HoldBranches, Interpolate
from marche_fx.head.policy import PRESETS, SlowReuse, reuse_of
from marche_fx.head.saving import head_reuse_from_dict, head_reuse_to_dict


def test_values_are_held_until_the_next_is_computed() -> None:
    held = Hold(3)
    assert held.computed(8) == (0, 3, 6)
    assert [held.stencil(number, (0, 3, 6), range(8)) for number in (2, 3, 7)] == [
        ((0, 1.0),),
        ((3, 1.0),),
        ((6, 1.0),),
    ]


def test_values_are_interpolated_in_time() -> None:
    times = [100.0, 80.0, 50.0, 0.0]
    assert Interpolate(2, "linear").computed(4) == (0, 3)
    assert dict(Interpolate(2, "linear").stencil(1, (0, 3), times)) == pytest.approx({0: 0.8, 3: 0.2})


@given(
    st.integers(2, 30),
    st.sampled_from(["linear", "cubic"]),
    st.lists(st.floats(0, 1000), min_size=2, max_size=60, unique=True),
    st.data(),
)
def test_a_polynomial_of_the_order_is_met(points: int, order: Any, times: list[float], data: st.DataObject) -> None:
    times = sorted((round(own, 2) for own in {round(own) for own in times}), reverse=True)
    policy, count = Interpolate(points, order), len(times)
    computed = policy.computed(count)
    assert computed[0] == 0
    assert computed[-1] == count - 1
    assert len({*computed}) == len(computed) == min(points, count)
    number = data.draw(st.integers(0, count - 1))
    stencil = policy.stencil(number, computed, times)
    degree = min(len(stencil), 2 if order == "linear" else 4) - 1
    coefficients = data.draw(st.lists(st.floats(-1, 1), min_size=degree + 1, max_size=degree + 1))
    values = np.polyval(coefficients, np.array(times) / 1000)
    found = sum(weight * values[own] for own, weight in stencil)
    assert found == pytest.approx(values[number], abs=1e-6)
    assert {own for own, _ in stencil} <= {*computed}


@given(
    st.builds(
        HeadReuse,
        st.one_of(
            st.none(),
            st.builds(Hold, st.integers(1, 9)),
            st.builds(Interpolate, st.integers(2, 50), st.sampled_from(["linear", "cubic"])),
        ),
        st.integers(1, 9),
        st.none() | st.builds(HoldBranches, st.integers(1, 9), st.lists(st.integers(0, 9)).map(tuple)),
        st.sampled_from(["first", "last"]),
    )
)
def test_it_is_the_same_as_plain_values(reuse: HeadReuse) -> None:
    assert head_reuse_from_dict(head_reuse_to_dict(reuse)) == reuse


def test_it_is_saved_as_json(tmp_path: Path) -> None:
    path = tmp_path / "head.json"
    marche_fx.save_head_reuse(PRESETS["balanced"], path)
    assert marche_fx.load_head_reuse(path) == PRESETS["balanced"]
    path.write_text('{"kind": "FullRefresh"}')
    with pytest.raises(
        CheckpointError, match="unknown policy 'FullRefresh'; known are HeadReuse, Hold, HoldBranches, Interpolate"
    ):
        marche_fx.load_head_reuse(path)
    path.write_text('{"kind": "Hold", "every": 2}')
    with pytest.raises(CheckpointError, match="expected what a head reuses"):
        marche_fx.load_head_reuse(path)
    with pytest.raises(CheckpointError, match="cannot read a policy"):
        marche_fx.load_head_reuse(tmp_path / "none.json")


class Own(SlowReuse):
    def computed(self, count: int) -> tuple[int, ...]:
        return (0,)

    def stencil(self, number: int, computed: Any, times: Any) -> Any:
        return ((0, 1.0),)


def test_a_policy_of_the_user_s_own_is_not_saved() -> None:
    with pytest.raises(ArgumentError, match="only built-in policies"):
        head_reuse_to_dict(HeadReuse(Own()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hold(0), "every of Hold must be an int of at least 1, got 0"),
        (lambda: Interpolate(1), "points of Interpolate must be an int of at least 2"),
        (lambda: Interpolate(4, "square"), 'must be "linear" or "cubic"'),  # type: ignore[arg-type]
        (lambda: HeadReuse(guidance=True), "guidance of HeadReuse must be an int"),
        (lambda: HeadReuse(slow=3), "slow must be Hold"),  # type: ignore[arg-type]
        (lambda: HoldBranches(0), "every of HoldBranches must be an int of at least 1"),
        (lambda: HoldBranches(2, whole=1), "whole of HoldBranches must be a tuple"),  # type: ignore[arg-type]
        (lambda: HoldBranches(2, whole=(-1,)), "whole of HoldBranches must be an int of at least 0"),
        (lambda: HeadReuse(branches=7), "branches must be HoldBranches"),  # type: ignore[arg-type]
        (lambda: HeadReuse(counted_from=3), 'counted_from must be "first" or "last", got 3'),  # type: ignore[arg-type]
        (lambda: reuse_of("quick"), "unknown head preset 'quick'; there are exact, balanced, lazymar"),
        (lambda: reuse_of(3), "reuse must be a HeadReuse or the name of a preset, got 3"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make()


def test_lazymar_computes_all_in_the_denoising_steps_in_which_its_code_does() -> None:
    """That counts denoising steps down, and computes in the first and wherever 7 divides those that are left."""
    count, reuse = 100, PRESETS["lazymar"]
    full = {number for number, left in enumerate(reversed(range(count))) if left == count - 1 or left % 7 == 0}
    assert len(full) == 16
    assert reuse.calls_of_both_halves(count) == reuse.calls_of_branches(count, has_halves=True) == full


@given(st.integers(0, 60), st.integers(1, 9), st.sampled_from(["first", "last"]))
def test_the_first_call_computes_all_and_so_does_that_which_is_counted_from(count: int, every: int, end: Any) -> None:
    full = HeadReuse(guidance=every, counted_from=end).calls_of_both_halves(count)
    assert (0 in full) == (count > 0)
    assert end == "first" or count == 0 or count - 1 in full
    gaps = [after - before for before, after in zip(sorted(full), sorted(full)[1:])]
    assert all(gap <= every for gap in gaps)
    assert gaps[1:-1] == [every] * len(gaps[1:-1])

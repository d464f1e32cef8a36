"""Policies compared at equal FLOPs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marche_fx.evaluate import DriftRow, parse_points
from marche_fx.evaluate.equal_flops import curves_of, drift_at, drift_over_others
from marche_fx.evaluate.tables import equal_flops_table

from .tiny import silent, written

FOUND = {
    "exact": (1.0, 0.0),
    "nothing": (0.1, 0.32),
    "selective:0.1": (0.3, 0.02),
    "selective:0.2": (0.5, 0.01),
    "random:0.1": (0.2, 0.08),
    "random:0.2": (0.4, 0.02),
    "oldest:0.1": (0.5, 0.04),
    "oldest:0.2": (0.3, 0.08),
    "random:0.1#2": (0.2, 1.0),
    "random:0.2#2": (0.4, 1.0),
}
POINTS = parse_points(list(FOUND))
ROWS = [DriftRow(spec, None, 32, 3.0, flops, drift, (drift,)) for spec, (flops, drift) in FOUND.items()]


def test_drift_falls_by_equal_shares_between_two_points() -> None:
    curve = [(0.2, 0.08), (0.4, 0.02), (0.5, 0.01)]
    assert drift_at(curve, 0.3) == pytest.approx(0.04)
    assert drift_at(curve, 0.35) == pytest.approx(0.04 / math.sqrt(2))
    assert [drift_at(curve, flops) for flops, _ in curve] == pytest.approx([drift for _, drift in curve])
    assert drift_at([(0.2, 0.03), (0.2, 0.02)], 0.2) == pytest.approx(0.03)


@pytest.mark.parametrize("flops", [0.19, 0.51])
def test_nothing_is_said_beyond_the_ends_of_a_curve(flops: float) -> None:
    assert drift_at([(0.2, 0.08), (0.5, 0.01)], flops) is None
    assert drift_at([(0.2, 0.08)], 0.2) is None
    assert drift_at([], 0.2) is None


@given(st.lists(st.tuples(st.floats(0.1, 1), st.floats(1e-6, 1)), min_size=2, max_size=6), st.floats(0, 1))
def test_what_is_interpolated_lies_between_its_neighbours(places: list[tuple[float, float]], share: float) -> None:
    curve = sorted(places)
    flops = curve[0][0] + share * (curve[-1][0] - curve[0][0])
    found = drift_at(curve, min(flops, curve[-1][0]))
    assert found is not None
    drifts = [drift for _, drift in curve]
    assert min(drifts) * (1 - 1e-9) <= found <= max(drifts) * (1 + 1e-9)


def test_a_curve_is_of_one_kind_on_one_set_of_seeds_in_the_order_of_flops() -> None:
    curves = curves_of(POINTS, ROWS)
    assert curves["oldest", ""] == [(0.3, 0.08), (0.5, 0.04)]
    assert curves["random", "#2"] == [(0.2, 1.0), (0.4, 1.0)]
    assert ("exact", "") not in curves, "what does not drift has no logarithm"


def test_each_point_is_compared_with_the_other_kinds_of_its_seeds() -> None:
    found = drift_over_others(POINTS, ROWS)
    assert found["selective:0.1"] == {"random": pytest.approx(0.02 / 0.04), "oldest": pytest.approx(0.02 / 0.08)}
    assert found["selective:0.2"] == {"random": None, "oldest": pytest.approx(0.01 / 0.04)}
    assert found["random:0.2"] == {
        "selective": pytest.approx(0.02 / math.sqrt(0.02 * 0.01)),
        "oldest": pytest.approx(0.02 / math.sqrt(0.08 * 0.04)),
    }
    assert found["random:0.1#2"] == {}
    assert "exact" not in found


def test_the_table_has_a_column_for_each_kind_and_leaves_out_what_is_not_known() -> None:
    console = silent()
    console.print(equal_flops_table(drift_over_others(POINTS, ROWS)))
    lines = [line.split() for line in written(console).splitlines()]
    assert ["policy", "selective", "random", "oldest"] in lines
    assert ["selective:0.1", "0.50", "0.25"] in lines
    assert ["selective:0.2", "0.25"] in lines

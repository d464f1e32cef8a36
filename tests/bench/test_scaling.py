"""How time and memory grow."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from marche_fx.bench.scaling import (
    CLASS_TOKENS,
    FULL,
    PARTIAL,
    VARIED,
    WIDTH,
    Point,
    Scaling,
    Shape,
    measure_scaling,
    varied_shapes,
)
from marche_fx.bench.scaling_plot import curve, save_scaling
from marche_fx.bench.tables import scaling_table
from tests.evaluate.tiny import silent, written


def test_tokens_are_squares_and_each_thing_is_varied_alone() -> None:
    shapes = varied_shapes(Shape(), VARIED)
    assert len(shapes) == len(set(shapes))
    assert all(math.isqrt(shape.tokens) ** 2 == shape.tokens for shape in shapes)
    usual = vars(Shape())
    assert all(sum(value != usual[name] for name, value in vars(shape).items()) <= 1 for shape in shapes)
    assert {shape.tokens for shape in shapes} >= {64, 4096}


def test_steps_of_many_shapes_are_measured_and_fitted(tmp_path: Path) -> None:
    usual = Shape(tokens=64, batch=1, depth=1, active=16)
    found = measure_scaling(usual, {"active": (8, 16, 24), "depth": (1, 2)}, repeats=1)
    partial = [point for point in found.points if point.kind == PARTIAL]
    assert sorted(point.rows for point in partial) == [8, 16, 16, 24]
    full = [point for point in found.points if point.kind == FULL]
    assert sorted(point.rows for point in full) == [68, 68]
    for point in found.points:
        tokens = point.shape.tokens + CLASS_TOKENS
        # Keys and values at least.
        assert point.cache_bytes >= 2 * point.shape.batch * point.shape.depth * tokens * WIDTH * 4
    assert set(found.fits) == {PARTIAL, FULL}
    assert all(value >= 0 for fit in found.fits.values() for value in fit.coefficients.values())
    assert json.loads(json.dumps(found.to_dict()))["fits"][PARTIAL]["error"] == found.fits[PARTIAL].error
    save_scaling(found, tmp_path / "scaling.png")
    console = silent()
    console.print(scaling_table(found))
    assert "rows x weights" in written(console)


def test_a_curve_differs_in_one_thing_alone() -> None:
    usual = Shape(tokens=64, batch=1, depth=1, active=16)
    points = [Point(replace(usual, active=active), PARTIAL, active, 1.0, None, 0) for active in (24, 16, 8)]
    other = Point(replace(usual, depth=2), PARTIAL, 16, 1.0, None, 0)
    found = Scaling({}, usual, (*points, other), {})
    assert curve(found, "active", PARTIAL) == points[::-1]
    assert curve(found, "depth", PARTIAL) == [points[1], other]
    assert curve(found, "depth", FULL) == []

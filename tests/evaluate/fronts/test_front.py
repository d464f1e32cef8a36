"""What a front tells of its ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from marche_fx.evaluate import frechet, parse_point
from marche_fx.evaluate.fronts.draw import draw, open_front, ways_of
from marche_fx.evaluate.fronts.front import Front, FrontRow, family_of, measure
from marche_fx.evaluate.fronts.plot import NEAR, draw_front
from marche_fx.evaluate.fronts.table import front_table
from marche_fx.tuning.intervals import Interval
from tests.evaluate.fronts.small import SETTINGS, latents
from tests.evaluate.tiny import silent, written


def row(way: str, family: str, distance: float, cost: float) -> FrontRow:
    """An interval of 1 to each side, of a quarter for the difference from a first way at 3."""
    over = distance - 3
    return FrontRow(
        *(way, family, 8, Interval(distance, distance - 1, distance + 1), Interval(over, over - 0.25, over + 0.25)),
        *(0.9, 1.0, 2.0, 1e9 * cost, cost),
    )


ROWS = (
    row("exact@32", "exact", 3.0, 1.0),
    row("exact@8", "exact", 5.0, 0.7),
    row("recipe:dear", "recipe", 3.2, 0.5),
    row("recipe:cheap", "recipe", 4.0, 0.2),
    row("disa@32", "disa", 3.1, 0.5),
    row("lazymar@32", "lazymar", 3 + NEAR + 1, 0.3),
    row("lazymar@8", "lazymar", 9.5, 0.1),
)
DIFFERENCES = {
    one.way: {
        other.way: Interval(one.frechet.estimate - other.frechet.estimate, -9, 9) for other in ROWS if other is not one
    }
    for one in ROWS
}
FRONT = Front({}, 500, ROWS, DIFFERENCES, batch=8)


def test_every_way_is_compared_with_the_best_recipe_that_costs_no_more() -> None:
    found = {way: (recipe, own.estimate) for way, (recipe, own) in FRONT.over_recipes().items()}
    expected = {
        "exact@32": ("recipe:dear", -0.2),
        "exact@8": ("recipe:dear", 1.8),
        "disa@32": ("recipe:dear", -0.1),
        "lazymar@32": ("recipe:cheap", NEAR),
    }
    assert found == {way: (recipe, pytest.approx(over)) for way, (recipe, over) in expected.items()}


def test_flops_take_the_place_of_times_that_were_not_taken_of_all() -> None:
    untimed = FRONT.with_costs({own.way: 4e9 for own in ROWS} | {"exact@32": 8e9}, {"exact@32": 1.0}, 8)
    assert not untimed.is_timed
    assert [untimed.cost(own) for own in untimed.rows] == [1.0] + [0.5] * (len(ROWS) - 1)
    assert FRONT.cost(ROWS[3]) == 0.2
    nothing = FRONT.with_costs({}, {}, None)
    assert nothing.over_recipes() == {}


def test_ways_of_a_line_share_a_family() -> None:
    words = {
        "exact@8": "exact",
        "exact@8+denoising=quadratic:9": "fewer denoising steps",
        "balanced@8": "cache",
        "balanced@8+reuse=exact": "recipe",
        "recap@8": "recap",
        "disa": "disa",
    }
    assert {word: family_of(parse_point(word)) for word in words} == words


@pytest.mark.parametrize("flops", [{}, {"exact@4": 4.0, "exact@2": 2.0}])
def test_distances_are_of_features_on_the_same_draws(tmp_path: Path, flops: dict[str, float]) -> None:
    task = latents()
    ways = ways_of(["exact@4", "exact@2"], task)
    folder = open_front(tmp_path, ways, SETTINGS, task)
    draw(folder, ways, SETTINGS, task, silent())
    front = measure(folder, ways, SETTINGS, task).with_costs(flops, {}, None)
    reference = task.judge.feature_mean, task.judge.feature_covariance
    spreads = []
    for way in ways:
        (first, second) = folder.read_batches(way, 2)
        spreads.append(frechet(torch.cat([first.features, second.features]), *reference))
    assert [own.frechet for own in front.rows] == [own.interval for own in spreads]
    assert front.rows[1].over_first == (spreads[1] - spreads[0]).interval
    assert front.differences["exact@4"]["exact@2"] == (spreads[0] - spreads[1]).interval
    shown = front.to_dict()
    assert shown["images"] == 6
    assert "images" not in shown["settings"]


def test_the_table_is_whole_where_no_terminal_says_how_wide_it_is() -> None:
    longest = replace(ROWS[1], way="exact@12+denoising=quadratic:15")
    front = replace(
        FRONT, rows=(ROWS[0], longest, *ROWS[2:]), differences={**DIFFERENCES, longest.way: DIFFERENCES["exact@8"]}
    )
    console = silent()
    console.print(front_table(front))
    assert "…" not in written(console)
    for row in front.rows:
        if row.family != "recipe" and row is not longest:
            assert row.way in written(console)
    assert "+1.80 (-9.00 to +9.00)" in written(console)


def drawn(axes: Axes) -> dict[str, list[tuple[float, float]]]:
    """The points of every line by its family."""
    found: dict[str, list[tuple[float, float]]] = {}
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, bars = container.lines
        points = [(x, y) for x, y in np.asarray(line.get_xydata()).tolist()]
        widths = [high - low for (_, low), (_, high) in np.asarray(bars[0].get_segments()).tolist()]
        assert all(width == pytest.approx(widths[0]) for width in widths)
        found[str(container.get_label()).removeprefix("_")] = points
    return found


def test_each_family_is_a_line_in_the_order_of_its_costs() -> None:
    figure = draw_front(FRONT)
    upper, lower = figure.axes
    above = drawn(upper)
    assert above["exact"] == [(0.7, 5.0), (1.0, 3.0)]
    assert above["lazymar"] == [(0.1, 9.5), (0.3, 9.0)]
    assert set(above) == {"exact", "recipe", "disa", "lazymar"}
    assert "lazymar" not in drawn(lower), "far ones would squeeze the others"
    assert drawn(lower)["recipe"] == [(0.2, 1.0), (0.5, pytest.approx(0.2))]
    assert {text.get_text() for text in upper.texts} - {""} == {own.way for own in ROWS}
    assert "batch 8" in lower.get_xlabel()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["exact", "recipe", "disa", "lazymar"]
    untimed = replace(FRONT, rows=tuple(replace(own, time_ratio=None) for own in ROWS))
    assert "FLOPs" in draw_front(untimed).axes[1].get_xlabel()

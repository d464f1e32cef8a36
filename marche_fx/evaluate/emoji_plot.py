"""The picture of a study of emoji: ``python -m marche_fx.evaluate.emoji_plot STUDY/study.json``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox

from ..stopping import run_command
from ..tuning.intervals import Interval
from .emoji import Way, parse_way
from .labels import label_points
from .plots import write
from .study.plots import CACHED, FEWER, OTHERS, REFERENCE

NEAR = 5.0
"""Ways further above the first one would squeeze the differences of all others: these are in the upper half alone."""


def flops_over_first(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """FLOPs of the transformer in a whole decoding over those of the first way.

    All exact steps are taken to cost the same. In fewer steps MAR's encoder sees fewer known tokens on average, so that
    a step in 16 costs 2% less than one in 64, a step in 4 some 8%.
    """
    costs = [parse_way(row["way"]).steps * row["transformer_flops_ratio"] for row in rows]
    return [cost / costs[0] for cost in costs]


def draw_study(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Above the Frechet distances of all ways, below how far those of most lie above the first way's."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    ways, costs = [parse_way(row["way"]) for row in rows], flops_over_first(rows)
    points = [(way, cost, Interval(**row["frechet"])) for way, cost, row in zip(ways, costs, rows, strict=True)]
    over = [(way, cost, Interval(**row["over_first"])) for way, cost, row in zip(ways, costs, rows, strict=True)]
    upper.set_ylabel("Frechet distance, 95% interval")
    lower.set_ylabel(f"over {ways[0].word}, on the same draws")
    lower.set_xlabel(f"FLOPs of the transformer, over those of {ways[0].word} (logarithmic)")
    lower.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    lower.set_xscale("log")
    lower.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    lower.xaxis.set_minor_locator(NullLocator())
    lower.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    draw_ways(figure, upper, points, ways[0])
    draw_ways(figure, lower, [point for point in over if point[2].estimate <= NEAR], ways[0])
    return figure


def draw_ways(figure: Figure, axes: Axes, points: Sequence[tuple[Way, float, Interval]], first: Way) -> None:
    """A point with its interval and its word for each way."""
    colours = [colour_of(way, first) for way, _, _ in points]
    for (_, cost, value), colour in zip(points, colours, strict=True):
        bars = [[value.estimate - value.low], [value.high - value.estimate]]
        axes.errorbar([cost], [value.estimate], bars, fmt="o", color=colour, markersize=4, capsize=2, linewidth=0.8)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    boxes = [Bbox([[cost * 0.99, value.low], [cost * 1.01, value.high]]) for _, cost, value in points]
    places = [(cost, value.estimate) for _, cost, value in points]
    label_points(figure, axes, [way.word for way, _, _ in points], colours, places, boxes)


def colour_of(way: Way, first: Way) -> str:
    """By what the way does: nothing, other denoising, a cache, fewer steps."""
    if way == first:
        return REFERENCE
    if way.denoising is not None:
        return OTHERS
    return FEWER if way.policy is None else CACHED


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a study of emoji, as study.png beside it.")
    parser.add_argument("study", type=Path, help="the study.json that python -m marche_fx.evaluate.emoji wrote")
    given = parser.parse_args()
    rows = json.loads(given.study.read_text(encoding="utf-8"))["rows"]
    write(draw_study(rows), given.study.with_suffix(".png"))


if __name__ == "__main__":
    run_command(main)

"""The picture of a front: Frechet distance against what a whole generation costs, a line for each family."""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox

from ...tuning.intervals import Interval
from ..labels import label_points
from ..plots import COLOURS, EXACT_COLOUR, boxes_along, finish, write
from ..points import EXACT
from .front import Front, FrontRow

NEAR = 5.0
"""Ways further above the first one would squeeze the differences of all others: these are in the upper half alone."""

HIDDEN = "_"
"""Before a name that a legend leaves out."""

Drawn = tuple[FrontRow, float, Interval]
"""A way, its cost, and what is drawn of it."""


def save_front(front: Front, path: Path) -> None:
    write(draw_front(front), path)


def draw_front(front: Front) -> Figure:
    """Above the distances of all ways, below how far those of most lie above the first way's on the same draws."""
    figure = Figure(figsize=(9, 9), layout="constrained")
    upper, lower = figure.subplots(2, sharex=True)
    known = [(row, cost) for row in front.rows if (cost := front.cost(row)) is not None]
    first = front.rows[0].way
    what = f"time of a whole generation at batch {front.batch}" if front.is_timed else "FLOPs of a whole generation"
    upper.set_ylabel("Frechet distance, 95% interval")
    lower.set_ylabel(f"over {first}, on the same draws")
    lower.set_xlabel(f"{what}, over {first}'s (logarithmic)")
    lower.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    lower.set_xscale("log")
    lower.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    lower.xaxis.set_minor_locator(NullLocator())
    colours = colours_of(front)
    draw_families(figure, upper, [(row, cost, row.frechet) for row, cost in known], colours)
    near = [(row, cost, row.over_first) for row, cost in known if row.over_first.estimate <= NEAR]
    draw_families(figure, lower, near, colours, HIDDEN)
    finish(figure, upper)
    lower.grid(alpha=0.3, linewidth=0.6)
    lower.spines[["top", "right"]].set_visible(False)
    lower.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


def draw_families(
    figure: Figure, axes: Axes, drawn: Sequence[Drawn], colours: dict[str, str], prefix: str = ""
) -> None:
    """A line for each family, named with a prefix, and for each way a point with its interval and its word."""
    bars = [Bbox([[cost * 0.99, value.low], [cost * 1.01, value.high]]) for _, cost, value in drawn]
    for family, colour in colours.items():
        own = sorted(((cost, value) for row, cost, value in drawn if row.family == family), key=itemgetter(0))
        if own:
            estimates = [value.estimate for _, value in own]
            lows = [value.estimate - value.low for _, value in own]
            highs = [value.high - value.estimate for _, value in own]
            style: dict[str, Any] = {"color": colour, "markersize": 4, "capsize": 2, "linewidth": 1.0}
            costs = [cost for cost, _ in own]
            axes.errorbar(costs, estimates, [lows, highs], fmt="o-", elinewidth=0.8, label=prefix + family, **style)
            if min(estimates) > 0:
                bars += boxes_along(list(zip(costs, estimates, strict=True)))
    places = [(cost, value.estimate) for _, cost, value in drawn]
    words = [row.way for row, _, _ in drawn]
    label_points(figure, axes, words, [colours[row.family] for row, _, _ in drawn], places, bars)


def colours_of(front: Front) -> dict[str, str]:
    """A colour for each family, in the order of the rows."""
    others = [family for family in dict.fromkeys(row.family for row in front.rows) if family != EXACT]
    return {EXACT: EXACT_COLOUR} | {family: COLOURS[number] for number, family in enumerate(others)}

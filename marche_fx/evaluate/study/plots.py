"""The pictures of a study: what variants are worth against what they cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox

from ...tuning.intervals import Interval
from ..labels import label_points
from ..plots import finish, write
from .figures import StudyRow

REFERENCE, FEWER, CACHED, OTHERS = "black", "tab:red", "tab:blue", "tab:green"
NOT_DRAWN = "exact"
"""It would cover the original."""

Row = TypeVar("Row", bound=StudyRow)


def save_same_by_rows(rows: Sequence[StudyRow], path: Path) -> None:
    """Of each variant the share of tokens that are the original's, with its interval, against the rows it computes."""
    figure, axes = new_axes()
    axes.set_xlabel("rows computed, over the original's (logarithmic)")
    axes.set_ylabel("tokens that are the original's with the same noise, 95% interval")
    axes.set_ylim(0, 1.04)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    draw_variants(figure, axes, rows, lambda row: row.rows, lambda row: row.same)
    write(figure, path)


def new_axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 6), layout="constrained")
    return figure, figure.subplots()


def draw_variants(
    figure: Figure,
    axes: Axes,
    rows: Sequence[Row],
    cost: Callable[[Row], float],
    worth: Callable[[Row], Interval],
) -> None:
    """A point with its interval and name for each variant; costs are shares, drawn by their logarithm."""
    shown = [row for row in rows if row.variant != NOT_DRAWN]
    colours = [colour_of(row) for row in shown]
    drawn, places = [], []
    for row, colour in zip(shown, colours):
        x, y = cost(row), worth(row)
        bars = [[y.estimate - y.low], [y.high - y.estimate]]
        axes.errorbar([x], [y.estimate], bars, fmt="o", color=colour, markersize=4, capsize=2, linewidth=0.8)
        drawn.append(Bbox([[x * 0.995, y.low], [x * 1.005, y.high]]))
        places.append((x, y.estimate))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    finish(figure, axes)
    label_points(figure, axes, [row.variant for row in shown], colours, places, drawn)


def colour_of(row: StudyRow) -> str:
    """By what the variant does: nothing, fewer steps, a policy of the library, the schedule of others."""
    if row.policy == repr(None):
        return REFERENCE if row.rows == 1 else FEWER
    return OTHERS if row.policy.startswith(("DualCache", "ValueCache", "MaxLogitCache")) else CACHED

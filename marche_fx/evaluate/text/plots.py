"""The pictures of the study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Bbox

from ..labels import label_points
from ..plots import finish, write
from .figures import TextRow

REFERENCE, FEWER, CACHED, OTHERS = "black", "tab:red", "tab:blue", "tab:green"


def save_same_by_rows(rows: Sequence[TextRow], path: Path) -> None:
    """Of each variant the share of pieces that are the original's, with its interval, against the rows it computes."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    shown = [row for row in rows if row.variant != "exact"]
    colours = [colour_of(row) for row in shown]
    for row, colour in zip(shown, colours):
        same = row.same
        bars = [[same.estimate - same.low], [same.high - same.estimate]]
        axes.errorbar([row.rows], [same.estimate], bars, fmt="o", color=colour, markersize=4, capsize=2, linewidth=0.8)
    axes.set_xlabel("rows computed, over the original's (logarithmic)")
    axes.set_ylabel("pieces that are the original's with the same noise, 95% interval over prompts")
    axes.set_xscale("log")
    axes.set_ylim(0, 1.04)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_minor_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    finish(figure, axes)
    drawn = [Bbox([[row.rows * 0.995, row.same.low], [row.rows * 1.005, row.same.high]]) for row in shown]
    places = [(row.rows, row.same.estimate) for row in shown]
    label_points(figure, axes, [row.variant for row in shown], colours, places, drawn)
    write(figure, path)


def colour_of(row: TextRow) -> str:
    """By what the variant does: nothing, fewer steps, a policy of the library, the schedule of others."""
    if row.policy == repr(None):
        return REFERENCE if row.rows == 1 else FEWER
    return OTHERS if row.policy.startswith(("DualCache", "ValueCache", "MaxLogitCache")) else CACHED

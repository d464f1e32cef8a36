"""The picture of a benchmark: how many times faster, against the share of tokens that is refreshed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluate.plots import write
from .machine import described
from .rows import TRANSFORMER, WHOLE, Bench, Row
from .variants import EAGER

LINES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def save_speedups(bench: Bench, path: Path) -> None:
    """A panel for each workload, batch and guidance scale, the transformer above the whole generation.

    Variants with a share are curves with the range over the repeats; others are lines across.
    """
    groups = list(dict.fromkeys((row.workload, row.batch, row.cfg) for row in bench.rows))
    parts = [part for part in (TRANSFORMER, WHOLE) if any(row.part == part for row in bench.rows)]
    figure = Figure(figsize=(1.2 + 4.8 * len(groups), 0.6 + 3.9 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), len(groups), squeeze=False)
    colours = colours_of(bench.rows)
    shares = sorted({row.refresh for row in bench.rows if row.refresh is not None})
    for line, part in zip(panels, parts, strict=True):
        for axes, (workload, batch, cfg) in zip(line, groups, strict=True):
            rows = [
                row
                for row in bench.rows
                if (row.workload, row.batch, row.cfg, row.part) == (workload, batch, cfg, part)
            ]
            draw_panel(axes, rows, shares, colours)
            guidance = "" if cfg is None else ", no guidance" if cfg == 1 else f", guidance {cfg:g}"
            axes.set_title(f"{part}: {workload}, batch {batch}{guidance}", fontsize=10)
        line[0].set_ylabel("times faster than the original, eager")
    for axes in panels[-1]:
        axes.set_xlabel("share of tokens refreshed in a step")
    handles = {label: handle for axes in panels.flat for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside right upper", fontsize=8, frameon=False)
    figure.supxlabel(described(bench.machine), fontsize=7, color="0.4")
    write(figure, path)


def draw_panel(axes: Axes, rows: Sequence[Row], shares: Sequence[float], colours: dict[str, str]) -> None:
    """Shares at equal distances: from 5% to 10% matters more than from 50% to 55%."""
    across = 0
    for name, colour in colours.items():
        own = [row for row in rows if row.variant == name and row.speedup_vs_eager is not None]
        curve = sorted((row.refresh, row) for row in own if row.refresh is not None)
        if curve:
            places = [shares.index(share) for share, _ in curve]
            middle = [row.speedup_vs_eager or 0.0 for _, row in curve]
            below = [at - (row.speedup_vs_eager_low or at) for at, (_, row) in zip(middle, curve)]
            above = [(row.speedup_vs_eager_high or at) - at for at, (_, row) in zip(middle, curve)]
            axes.errorbar(places, middle, [below, above], fmt="o-", color=colour, markersize=4, capsize=2, label=name)
            for place, at in zip(places, middle):
                axes.annotate(f"{at:.2f}x", (place, at), (5, 4), textcoords="offset points", fontsize=7, color=colour)
        for row in own:
            if row.refresh is None:
                style = "-" if name == EAGER else LINES[across % len(LINES)]
                across += name != EAGER
                axes.axhline(row.speedup_vs_eager or 0.0, color=colour, linestyle=style, linewidth=1.1, label=name)
    axes.set_xticks(range(len(shares)), [f"{share:.0%}" for share in shares])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def colours_of(rows: Sequence[Row]) -> dict[str, str]:
    names = dict.fromkeys(row.variant for row in rows)
    others = [name for name in names if name != EAGER]
    own = {name: f"C{number % 10}" for number, name in enumerate(others)}
    return ({EAGER: "black"} if EAGER in names else {}) | own

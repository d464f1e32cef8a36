"""The picture of how time and memory grow."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from ..evaluate.plots import write
from .machine import described
from .scaling import FULL, PARTIAL, VARIED, WIDTH, Point, Scaling

COLOURS = {PARTIAL: "C2", FULL: "C0"}
LABELS = {"tokens": "tokens", "batch": "samples", "depth": "blocks", "active": "active rows of a sample"}


def save_scaling(found: Scaling, path: Path) -> None:
    """A column for each thing that is varied: measured times with the fitted model, memory below."""
    names = [name for name in VARIED if len(curve(found, name, PARTIAL)) > 1]
    figure = Figure(figsize=(1 + 3.4 * len(names), 6.4), layout="constrained")
    panels = figure.subplots(2, len(names), squeeze=False)
    for column, name in zip(panels.T, names, strict=True):
        draw_time(column[0], found, name)
        draw_memory(column[1], found, name)
        for axes in column:
            axes.set_xscale("log")
            axes.set_yscale("log")
            values = sorted({asdict(point.shape)[name] for point in curve(found, name, PARTIAL)})
            axes.set_xticks(values, [f"{value:,}" for value in values], fontsize=8)
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.grid(alpha=0.3, linewidth=0.6)
        column[1].set_xlabel(LABELS[name])
    panels[0, 0].set_ylabel("milliseconds of a decoder's step")
    panels[1, 0].set_ylabel("MiB")
    base = found.usual
    figure.suptitle(
        f"decoder of width {WIDTH}; where not varied {base.tokens:,} tokens, {base.batch} samples, {base.depth} "
        f"blocks, {base.active} active rows",
        fontsize=10,
    )
    for row in panels:
        # The last column may lack full steps, which know no active rows.
        handles, labels = row[0].get_legend_handles_labels()
        row[-1].legend(handles, labels, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=8, frameon=False)
    figure.supxlabel(described(found.machine), fontsize=7, color="0.4")
    write(figure, path)


def draw_time(axes: Axes, found: Scaling, name: str) -> None:
    """Dots for what was measured, a line for what the model says."""
    for kind, colour in COLOURS.items():
        own = curve(found, name, kind)
        if len(own) < 2:
            continue
        places = [asdict(point.shape)[name] for point in own]
        axes.plot(places, [1000 * point.seconds for point in own], "o", color=colour, markersize=5, label=kind)
        fitted = [1000 * found.fits[kind].predict(point.terms) for point in own]
        label = f"{kind}, model ({found.fits[kind].error:.0%} off)"
        axes.plot(places, fitted, "-", color=colour, linewidth=1, label=label)


def draw_memory(axes: Axes, found: Scaling, name: str) -> None:
    """Caches, and what a step takes beside them."""
    caches = curve(found, name, PARTIAL)
    places = [asdict(point.shape)[name] for point in caches]
    axes.plot(places, [point.cache_bytes / 2**20 for point in caches], "s--", color="C1", markersize=4, label="caches")
    for kind, colour in COLOURS.items():
        own = [point for point in curve(found, name, kind) if point.peak_bytes]
        if len(own) < 2:
            continue
        places = [asdict(point.shape)[name] for point in own]
        peaks = [(point.peak_bytes or 0) / 2**20 for point in own]
        axes.plot(places, peaks, "o-", color=colour, markersize=4, linewidth=1, label=f"{kind}, peak over before")


def curve(found: Scaling, name: str, kind: str) -> list[Point]:
    """The points of one kind that differ from the usual shape in ``name`` alone, by its value."""
    usual = asdict(found.usual)
    own = []
    for point in found.points:
        others = {each: value for each, value in asdict(point.shape).items() if each != name}
        if point.kind == kind and all(usual[each] == value for each, value in others.items()):
            own.append(point)
    return sorted(own, key=lambda point: int(asdict(point.shape)[name]))

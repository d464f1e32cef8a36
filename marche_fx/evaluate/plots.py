"""The pictures of an evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox
from torch import Tensor

from ..reporting.picture import save_figure
from .equal_flops import Curve, curves_of
from .labels import label_points, side_by_side
from .points import EXACT, Point
from .rows import DriftRow, Evaluation

COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9", "tab:gray", "darkgreen", "navy")
EXACT_COLOUR = "black"
GAP = 0.013
"""Between intervals drawn side by side, of the width of the axes."""
LINES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", "h")


def save_quality(evaluation: Evaluation, path: Path) -> None:
    """Frechet distance with its interval against FLOPs; the exact model's interval as a band.

    Points of nearly equal FLOPs are drawn side by side.
    """
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    points, rows = evaluation.points, evaluation.rows
    colours = colours_of(points)
    widest = max(row.flops_ratio for row in rows)
    places = side_by_side([row.flops_ratio for row in rows], GAP * widest)
    if evaluation.exact_interval is not None:
        axes.axhspan(*evaluation.exact_interval, color="0.9", zorder=0, label="exact, intervals of all its seeds")
    for kind, colour in colours.items():
        own = sorted(
            (place, row.frechet, row.frechet - row.frechet_low, row.frechet_high - row.frechet)
            for point, row, place in zip(points, rows, places)
            if point.kind == kind
        )
        flops, frechet, below, above = zip(*own, strict=True)
        axes.errorbar(flops, frechet, [below, above], fmt="o", color=colour, markersize=4, capsize=2, label=kind)
        if kind == EXACT:
            axes.plot(flops, frechet, color=colour, linewidth=0.6, alpha=0.6, linestyle=":")
    axes.set_xlabel("FLOPs of the transformer, over the exact model's (nearly equal ones side by side)")
    axes.set_ylabel("Frechet distance to the test set, 95% interval")
    axes.set_xlim(0, 1.05 * max(places))
    finish(figure, axes)
    bars = [Bbox([[place, row.frechet_low], [place, row.frechet_high]]) for place, row in zip(places, rows)]
    dots = [(place, row.frechet) for place, row in zip(places, rows)]
    label_points(figure, axes, [point.label for point in points], [colours[point.kind] for point in points], dots, bars)
    write(figure, path)


def save_drift_by_step(points: Sequence[Point], drifts: Sequence[Sequence[float]], path: Path) -> None:
    """Drift against the decoding step, a curve for each point that is not exact."""
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    colours, seen = colours_of(points), dict.fromkeys((point.kind for point in points), 0)
    for point, drift in zip(points, drifts, strict=True):
        if point.policy is None:
            continue
        line = LINES[seen[point.kind] % len(LINES)]
        seen[point.kind] += 1
        steps = range(1, len(drift) + 1)
        axes.plot(steps, drift, line, color=colours[point.kind], linewidth=1.3, label=point.label)
    axes.set_xlabel("decoding step")
    axes.set_ylabel("drift: error of the rows read, over their norm")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish(figure, axes)
    write(figure, path)


def save_drift_by_flops(points: Sequence[Point], rows: Sequence[DriftRow], path: Path) -> None:
    """Mean drift against FLOPs, a curve for each kind of policy, number of steps and set of seeds.

    Drift is drawn by its logarithm, so that equal ratios are equal distances.
    """
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    axes = figure.subplots()
    colours = colours_of(points)
    curves = curves_of(points, rows)
    kinds, suffixes = (list(dict.fromkeys(part)) for part in zip(*curves, strict=True)) if curves else ([], [])
    for (kind, suffix), curve in curves.items():
        line, marker = LINES[suffixes.index(suffix) % len(LINES)], MARKERS[kinds.index(kind) % len(MARKERS)]
        flops, drift = zip(*curve, strict=True)
        axes.plot(flops, drift, line, marker=marker, color=colours[kind], linewidth=1.3, label=kind + suffix)
    axes.set_xlabel("FLOPs of the transformer, over the exact model's")
    axes.set_ylabel("drift, mean over decoding steps (logarithmic)")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    finish(figure, axes)
    if curves:
        words, own = [kind + suffix for kind, suffix in curves], [colours[kind] for kind, _ in curves]
        drawn = [box for curve in curves.values() for box in boxes_along(curve)]
        label_points(figure, axes, words, own, [curve[-1] for curve in curves.values()], drawn)
    write(figure, path)


def boxes_along(curve: Curve, count: int = 12) -> list[Bbox]:
    """Boxes that cover a curve whose drift is drawn by its logarithm, so many between two points."""
    boxes = []
    for (left, before), (right, after) in itertools.pairwise(curve):
        ends = [
            (left + (right - left) * part / count, before * (after / before) ** (part / count))
            for part in range(count + 1)
        ]
        boxes += [Bbox.from_extents(a[0], min(a[1], b[1]), b[0], max(a[1], b[1])) for a, b in itertools.pairwise(ends)]
    return boxes


def save_images(labels: Sequence[str], images: Sequence[Tensor], path: Path) -> None:
    """The same draws in different ways: a row of uint8 images ``[n, 1, H, W]`` behind its label for each."""
    longest = max(map(len, images))
    figure = Figure(figsize=(2 + 0.5 * longest, 0.5 * len(labels) + 0.2), layout="constrained")
    cells = figure.subplots(len(labels), longest, squeeze=False)
    for label, shown, row in zip(labels, images, cells, strict=True):
        row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
        for cell in row:
            cell.set(xticks=[], yticks=[], frame_on=False)
        for image, cell in zip(shown, row):
            cell.imshow(255 - image[0].numpy(), cmap="gray", vmin=0, vmax=255)
    write(figure, path)


def colours_of(points: Sequence[Point]) -> dict[str, str]:
    """A colour for each kind, in the order of the points."""
    others = [kind for kind in dict.fromkeys(point.kind for point in points) if kind != EXACT]
    colours = {kind: COLOURS[number % len(COLOURS)] for number, kind in enumerate(others)}
    return ({EXACT: EXACT_COLOUR} if any(point.kind == EXACT for point in points) else {}) | colours


def finish(figure: Figure, axes: Axes) -> None:
    """Grid and a legend beside the axes, where it covers nothing."""
    axes.grid(alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if axes.get_xlabel().startswith("FLOPs"):
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", fontsize=8, frameon=False)


def write(figure: Figure, path: Path) -> None:
    save_figure(figure, path, dpi=130)

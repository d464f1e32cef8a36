"""Words beside points of a picture, moved so that they cover neither each other nor what is drawn."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

DISTANCES = (9, 16, 24, 34, 46)
DIRECTIONS = tuple(range(0, 360, 30))
NEAR = 20
"""From so many points on a line leads from the word to its point."""


def label_points(
    figure: Figure,
    axes: Axes,
    words: Sequence[str],
    colours: Sequence[str],
    places: Sequence[tuple[float, float]],
    drawn: Sequence[Bbox],
) -> None:
    """Write each word beside its place, at the nearest spot where it covers least.

    Args:
        places: in the coordinates of the axes' data. drawn: boxes in the same that no word should cover.
    """
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()  # Lays the axes out.
    taken = [axes.transData.transform_bbox(box).padded(2) for box in drawn]
    taken += [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform(places)]
    inside = axes.get_window_extent(renderer)
    for word, colour, place in zip(words, colours, places, strict=True):
        text = axes.annotate(word, place, (0, 0), textcoords="offset points", va="center", fontsize=8, color=colour)
        text.set_in_layout(False)
        best = math.inf, 0.0, 0.0
        for distance, direction in itertools.product(DISTANCES, DIRECTIONS):
            x, y = distance * math.cos(math.radians(direction)), distance * math.sin(math.radians(direction))
            put(text, x, y)
            box = text.get_window_extent(renderer)
            outside = area(box) - overlap(box, inside)
            cost = 10 * outside + sum(overlap(box.padded(1), other) for other in taken) + distance
            best = min(best, (cost, x, y))
        _, x, y = best
        put(text, x, y)
        taken.append(text.get_window_extent(renderer))
        if math.hypot(x, y) > NEAR:
            line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
            axes.annotate("", place, (x, y), textcoords="offset points", arrowprops=line).set_in_layout(False)


def side_by_side(values: Sequence[float], gap: float) -> list[float]:
    """The values moved as little as it takes (in squares) to keep their order and be ``gap`` apart."""
    order = sorted(range(len(values)), key=values.__getitem__)
    # Where all gaps are taken out this is a fit that never falls: pool neighbours that do.
    pools: list[list[float]] = []
    for rank, number in enumerate(order):
        pools.append([values[number] - rank * gap])
        while len(pools) > 1 and mean(pools[-2]) > mean(pools[-1]):
            pools[-2:] = [pools[-2] + pools[-1]]
    fitted = [mean(pool) for pool in pools for _ in pool]
    moved = {number: value + rank * gap for rank, (number, value) in enumerate(zip(order, fitted))}
    return [moved[number] for number in range(len(values))]


def put(text: Annotation, x: float, y: float) -> None:
    """Move an annotation, left of its point where it goes to the left."""
    text.set_position((x, y))
    text.set_horizontalalignment("left" if x > 3 else "right" if x < -3 else "center")


def area(box: Bbox) -> float:
    return box.width * box.height


def overlap(a: Bbox, b: Bbox) -> float:
    common = Bbox.intersection(a, b)
    return 0.0 if common is None else area(common)

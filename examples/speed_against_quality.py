"""One picture of what speed costs in quality: a benchmark's times and an evaluation's Frechet distances.

marche-fx evaluate --out images --policy exact --policy selective:0.1 --policy exact@10
marche-fx bench --steps 32 --out times --variant eager --variant selective:0.1 --variant fewer:10
python examples/speed_against_quality.py times/bench.json images/evaluation.json speed.png
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from marche_fx.evaluate.labels import label_points, side_by_side

PART = "transformer"


@dataclass(frozen=True)
class Point:
    """A policy: times faster than the original run eagerly, Frechet distance and its 95% interval."""

    name: str
    speedup: float
    frechet: float
    low: float
    high: float


def matched(bench: dict[str, Any], evaluation: dict[str, Any]) -> list[Point]:
    """The policies of an evaluation that a benchmark timed, by their words; the exact model is the original."""
    timed = {word_of(row): row["speedup_vs_eager"] for row in bench["rows"] if row["part"] == PART}
    found = []
    for row in evaluation["rows"]:
        name = Path(row["policy"]).name
        if name in timed:
            found.append(Point(name, timed[name], row["frechet"], row["frechet_low"], row["frechet_high"]))
    return found


def word_of(row: dict[str, Any]) -> str:
    """How `marche-fx evaluate` calls what a row of a benchmark is about."""
    if row["variant"] == "eager":
        return "exact"
    if row["variant"].startswith("fewer:"):
        return f"exact@{row['steps']}"
    share = row["refresh"]
    return Path(row["variant"]).name + ("" if share is None else f":{share:g}")


def draw(points: list[Point], path: Path) -> None:
    """Frechet distance against the speed-up of the transformer."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    exact = next((point for point in points if point.name == "exact"), None)
    if exact is not None:
        axes.axhspan(exact.low, exact.high, color="0.92", zorder=0)
    ordered = sorted(points, key=lambda own: own.speedup)
    widest = max(point.speedup for point in points)
    # Nearly equal ones are drawn side by side.
    places = side_by_side([point.speedup for point in ordered], 0.012 * widest)
    colours = [f"C{number % 10}" for number in range(len(points))]
    for place, point, colour in zip(places, ordered, colours):
        bars = [[point.frechet - point.low], [point.high - point.frechet]]
        axes.errorbar([place], [point.frechet], bars, fmt="o", markersize=4, color=colour, capsize=2)
    axes.set_xlim(0, 1.1 * max(places))
    axes.set_xlabel(f"times faster than the original run eagerly ({PART})")
    axes.set_ylabel("Frechet distance to the test set, 95% interval")
    axes.grid(alpha=0.3)
    dots = [(place, point.frechet) for place, point in zip(places, ordered)]
    drawn = [Bbox([[place, point.low], [place, point.high]]) for place, point in zip(places, ordered)]
    label_points(figure, axes, [point.name for point in ordered], colours, dots, drawn)
    figure.savefig(path, dpi=130)


def main(bench: Path, evaluation: Path, picture: Path) -> list[Point]:
    points = matched(json.loads(bench.read_text()), json.loads(evaluation.read_text()))
    for point in points:
        print(f"{point.name}: {point.speedup:.2f}x, Frechet distance {point.frechet:.2f}")
    draw(points, picture)
    return points


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

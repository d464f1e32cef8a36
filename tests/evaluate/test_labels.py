"""Words and points that do not cover each other."""

from __future__ import annotations

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from marche_fx.evaluate.labels import label_points, overlap, side_by_side


def test_points_far_apart_stay_and_near_ones_part_around_their_middle() -> None:
    assert side_by_side([3.0, 0.0, 10.0], 1) == [3, 0, 10]
    assert side_by_side([5.0, 5.0, 0.0], 1) == [4.5, 5.5, 0]
    assert side_by_side([1.0, 1.2, 1.4], 1) == pytest.approx([0.2, 1.2, 2.2])


def test_words_cover_no_other_word() -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    places = [(0.5 + 0.001 * number, 0.5) for number in range(8)]
    axes.plot(*zip(*places))
    words = [f"policy:{number}" for number in range(8)]
    label_points(figure, axes, words, ["black"] * 8, places, [])
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
    assert len(boxes) == 8
    assert sum(overlap(a, b) for number, a in enumerate(boxes) for b in boxes[:number]) == 0

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from PIL import Image

from marche_fx.evaluate.emoji_plot import NEAR, draw_study, flops_over_first, main


def row(way: str, ratio: float, frechet: float, over: float) -> dict[str, Any]:
    """With an interval of 1 to each side, of a quarter for the difference."""
    return {
        "way": way,
        "transformer_flops_ratio": ratio,
        "frechet": {"estimate": frechet, "low": frechet - 1, "high": frechet + 1},
        "over_first": {"estimate": over, "low": over - 0.25, "high": over + 0.25},
    }


ROWS = [
    row("exact@64", 1.0, 8.0, 0.0),
    row("exact@16", 1.0, 9.0, 1.0),
    row("default@64", 0.25, 8.5, 0.5),
    row("balanced@32", 0.4, 8.25, 0.25),
    row("exact@64+quadratic:25", 1.0, 7.5, -0.5),
    row("exact@4", 1.0, 20.0, NEAR + 7),
]


def drawn(axes: Axes) -> list[tuple[float, float, float, float]]:
    """The place of every point, and where its interval begins and ends."""
    found = []
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        point, _, bars = container.lines
        ((x, y),) = np.asarray(point.get_xydata()).tolist()
        ((_, low), (_, high)) = np.asarray(bars[0].get_segments()[0]).tolist()
        found.append((x, y, low, high))
    return found


def test_flops_are_those_of_all_steps() -> None:
    assert flops_over_first(ROWS) == pytest.approx([1, 0.25, 0.25, 0.2, 1, 0.0625])
    assert flops_over_first(ROWS[1:3]) == pytest.approx([1, 1])


def test_every_way_is_drawn_at_its_figures_and_those_near_the_first_at_their_differences() -> None:
    upper, lower = draw_study(ROWS).axes
    costs = flops_over_first(ROWS)
    estimates = [8.0, 9.0, 8.5, 8.25, 7.5, 20.0]
    assert drawn(upper) == [(x, y, y - 1, y + 1) for x, y in zip(costs, estimates, strict=True)]
    differences = [0.0, 1.0, 0.5, 0.25, -0.5]
    expected = [(x, y, y - 0.25, y + 0.25) for x, y in zip(costs, differences)]
    assert drawn(lower) == expected
    assert {text.get_text() for text in upper.texts} - {""} == {row["way"] for row in ROWS}
    assert {text.get_text() for text in lower.texts} - {""} == {row["way"] for row in ROWS[:-1]}


def test_the_command_writes_the_picture_beside_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study.json").write_text(json.dumps({"rows": ROWS}))
    monkeypatch.setattr(sys, "argv", ["emoji_plot", str(tmp_path / "study.json")])
    main()
    with Image.open(tmp_path / "study.png") as picture:
        assert min(picture.size) > 500

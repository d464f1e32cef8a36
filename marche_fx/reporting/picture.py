"""A picture of the tokens that a session computed in each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..errors import ArgumentError
from ..runtime.records import REASONS
from ..saving.files import replacing
from .step_choices import StepChoices

COLOURS = ("#e8e8e8", "#d55e00", "#0072b2", "#009e73")
"""One for each of `REASONS`; told apart by colour-blind readers too."""

ENDINGS = (".png", ".svg", ".pdf")

PANEL = 1.25
"""Inches of one step's picture."""


@dataclass(frozen=True)
class Grid:
    """Where tokens are drawn: ``height`` x ``width`` of them from ``front`` on, the others in lines above."""

    front: int
    height: int
    width: int

    def arranged(self, tokens: np.ndarray) -> np.ma.MaskedArray:
        """``[N]`` as the image ``[lines, width]``; what is masked is no token."""
        size = self.height * self.width
        image = tokens[self.front : self.front + size].reshape(self.height, self.width)
        others = np.concatenate([tokens[: self.front], tokens[self.front + size :]])
        if not len(others):
            return np.ma.masked_less(image, 0)
        lines = -(-len(others) // self.width)
        above = np.full(lines * self.width, -1)
        above[: len(others)] = others
        gap = np.full((1, self.width), -1)
        return np.ma.masked_less(np.concatenate([above.reshape(lines, self.width), gap, image]), 0)


def draw_choices(
    choices: Sequence[StepChoices],
    path: Path,
    *,
    grid: tuple[int, int] | None,
    sample: int,
    step_method: str | None,
) -> None:
    """Write a picture of the tokens that each call of one step method computed for one sample.

    Raises:
        ArgumentError: the method or the sample is not there, the grid has more tokens than the step, the name has
            another ending than `ENDINGS`, or its folder does not exist.
    """
    check_picture(path)
    chosen = calls_of(choices, step_method)
    samples, tokens = chosen[-1].reasons.shape
    if isinstance(sample, bool) or not isinstance(sample, int) or not 0 <= sample < samples:
        raise ArgumentError(f"sample must lie in 0..{samples - 1}, got {sample!r}")
    place = place_of(grid, tokens, chosen[-1].square)
    values = np.stack([own.reasons[sample].numpy().astype(int) for own in chosen])
    figure = drawn_as_lines(chosen, values) if place is None else drawn_as_images(chosen, values, place)
    figure.suptitle(f"{chosen[-1].method}, sample {sample}: tokens computed in each step", fontsize=11)
    dropped = any(own.visible < tokens for own in chosen)
    labels = ["cached or dropped" if dropped else REASONS[0], *REASONS[1:]]
    # A legend of the whole figure finds a place of its own below the panels.
    figure.legend(
        handles=[Patch(facecolor=colour, label=label) for colour, label in zip(COLOURS, labels)],
        loc="outside lower center",
        ncols=len(labels),
        frameon=False,
        fontsize=9,
    )
    save_figure(figure, path, dpi=150)


def save_figure(figure: Figure, path: Path, *, dpi: int) -> None:
    """Write a picture whole, or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=dpi, format=path.suffix.removeprefix("."))


def check_picture(path: Path) -> None:
    """Refuse the name of a picture that could not be written, before it is drawn.

    Raises:
        ArgumentError: it has another ending than `ENDINGS`, or its folder does not exist.
    """
    if path.suffix not in ENDINGS:
        raise ArgumentError(f"a picture is saved as {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, got {path.name!r}")
    if not path.resolve().parent.is_dir():
        raise ArgumentError(f"there is no folder {path.resolve().parent} to write the picture to")


def calls_of(choices: Sequence[StepChoices], method: str | None) -> list[StepChoices]:
    """The calls of one step method, the one called last when omitted, on tensors like those of its last call."""
    names = list(dict.fromkeys(own.method for own in choices))
    if method is not None and method not in names:
        raise ArgumentError(f"no step method {method!r} was called in the session; there are {', '.join(names)}")
    own = [step for step in choices if step.method == (method or choices[-1].method)]
    return [step for step in own if step.reasons.shape == own[-1].reasons.shape]


def place_of(grid: object, tokens: int, square: tuple[int, int] | None) -> Grid | None:
    """Where to draw an image of tokens; None for tokens in a line."""
    if grid is None:
        return None if square is None else Grid(square[0], math.isqrt(square[1]), math.isqrt(square[1]))
    sizes = list(grid) if isinstance(grid, (tuple, list)) else []
    if len(sizes) != 2 or any(isinstance(own, bool) or not isinstance(own, int) or own < 1 for own in sizes):
        raise ArgumentError(f"grid must be a height and a width of at least 1, got {grid!r}")
    height, width = sizes
    if height * width > tokens:
        raise ArgumentError(f"grid {height} x {width} has more than the {tokens} tokens of the step")
    if min(height, width) == 1:
        return None
    if square is not None and square[1] == height * width:
        return Grid(square[0], height, width)
    return Grid(tokens - height * width, height, width)


def drawn_as_images(choices: Sequence[StepChoices], values: np.ndarray, grid: Grid) -> Figure:
    """A small panel for each step."""
    columns = min(len(choices), max(8, math.isqrt(len(choices) - 1) + 1))
    lines = -(-len(choices) // columns)
    images = [grid.arranged(tokens) for tokens in values]
    height, width = images[0].shape
    size = (max(columns * PANEL, 5.0), lines * (PANEL * height / width + 0.22) + 0.75)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False).flatten()
    for panel in panels:
        panel.set_axis_off()
    for panel, own, image in zip(panels, choices, images):
        paint(panel, image, edge=min(0.4, 5 * PANEL / width))
        panel.set_aspect("equal")
        panel.set_title(f"step {own.step}: {own.active}", fontsize=8, pad=3)
    return figure


def drawn_as_lines(choices: Sequence[StepChoices], values: np.ndarray) -> Figure:
    """Tokens from top to bottom, steps from left to right."""
    size = (min(max(0.16 * len(choices) + 1.6, 6.0), 16.0), min(max(0.06 * values.shape[1] + 1.4, 3.0), 9.0))
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    paint(panel, np.ma.asarray(values.T), edge=0.3 if values.size < 4000 else 0.0)
    panel.set_xlabel("step")
    panel.set_ylabel("token")
    labelled = range(0, len(choices), -(-len(choices) // 16))
    panel.set_xticks([number + 0.5 for number in labelled], [str(choices[number].step) for number in labelled])
    return figure


def paint(panel: Any, image: np.ma.MaskedArray, edge: float) -> None:
    """One square a token, the first line on top."""
    palette = ListedColormap(list(COLOURS))
    panel.pcolormesh(image, cmap=palette, vmin=-0.5, vmax=3.5, edgecolors="white", linewidth=edge)
    panel.invert_yaxis()

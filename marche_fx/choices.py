"""Which tokens a session computed in each step, and why: as numbers, as a table, and as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from .errors import ArgumentError
from .runtime import Program
from .session import REASONS, Session

LETTERS = ".cqr"
"""One for each of `REASONS`, for a sample's tokens as text."""

COLOURS = ("#e8e8e8", "#d55e00", "#0072b2", "#009e73")
"""One for each of `REASONS`; told apart by colour-blind readers too."""

ENDINGS = (".png", ".svg", ".pdf")

PANEL = 1.25
"""Inches of one step's picture."""


@dataclass(frozen=True)
class StepChoices:
    """What one call of a step method computed.

    Attributes:
        step: number of the call among those of its method, 0 for the first; a call that a `Monitor` found off and
            repeated in full is there twice. method: its name.
        active: tokens computed in each sample. visible: those that the original computes.
        reasons: uint8 ``[B, N]`` on the host, an index into `REASONS`: why each token was computed, or that it was not.
        flops_ratio: FLOPs computed over those of the original.
        drift: how far cached rows were from exact ones, where a `Monitor` checked.
        square: of the token axis, the first token of a square image and how many it has; None where there is no image.
    """

    step: int
    method: str
    active: int
    visible: int
    reasons: Tensor = field(repr=False)
    flops_ratio: float
    drift: float | None = None
    square: tuple[int, int] | None = None

    def count(self, reason: str) -> list[int]:
        """How many tokens of each sample were computed for one of `REASONS`."""
        return (self.reasons == REASONS.index(reason)).sum(1).tolist()

    def tokens_text(self) -> list[str]:
        """A letter for each token, a text for each sample: ``.`` cached, ``c``hanged, ``q``ueried or ``r``efreshed."""
        return ["".join(LETTERS[reason] for reason in sample) for sample in self.reasons.tolist()]

    def to_dict(self, *, tokens: bool = False) -> dict[str, Any]:
        """The same as plain values, token by token if asked for."""
        found: dict[str, Any] = {reason: self.count(reason) for reason in REASONS[1:]}
        for name in ("step", "method", "active", "visible", "flops_ratio", "drift"):
            found[name] = getattr(self, name)
        if tokens:
            found["tokens"] = self.tokens_text()
        return dict(sorted(found.items()))


def choices_of(session: Session) -> tuple[StepChoices, ...]:
    """What a session computed, call by call; the reasons come to the host in one transfer."""
    records = session.records
    if not records:
        return ()
    device = records[0].reasons.device
    flat = torch.cat([record.reasons.to(device).flatten() for record in records]).cpu()
    reasons = [
        part.view(record.reasons.shape)
        for part, record in zip(flat.split([record.reasons.numel() for record in records]), records)
    ]
    squares = {record.program.tokens: square_of([own.program for own in records], record.program) for record in records}
    calls: dict[str, int] = {}
    found = []
    for record, own in zip(records, reasons):
        # A check that finds cached rows off is followed by the same call in full.
        is_repeated = record.drift is not None and record.active == record.visible
        calls[record.name] = max(calls.get(record.name, -1) + (not is_repeated), 0)
        ratio = record.flops / max(record.original_flops, 1.0)
        found.append(
            StepChoices(
                calls[record.name],
                record.name,
                record.active,
                record.visible,
                own,
                ratio,
                record.drift,
                squares[record.program.tokens],
            )
        )
    return tuple(found)


def square_of(programs: Sequence[Program], program: Program) -> tuple[int, int] | None:
    """Where a square image lies on a token axis: the rows of a result if these are a square, or all tokens.

    In MAR the decoder's results are the image, and class tokens stand in front of it.
    """
    alike = [own for own in programs if own.tokens == program.tokens]
    rows = [(row.offset, row.count) for own in alike for row in own.row_outputs if row is not None]
    return next((own for own in [*rows, (0, program.tokens)] if math.isqrt(own[1]) ** 2 == own[1]), None)


# -------------------------------------------------------------------------------------------------------- as a table


def choices_table(choices: Sequence[StepChoices], steps: int | None = None) -> Table:
    """A row for every call of a step method; of more than ``steps`` steps, the first ones and a few of the last.

    Raises:
        ArgumentError: ``steps`` is not positive.
    """
    if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
        raise ArgumentError(f"steps must be at least 1, or None for all, got {steps!r}")
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("step", justify="right")
    table.add_column("method")
    columns = ("active\nof a sample", "these\nchanged", "\nqueried", "\nrefreshed", "FLOPs\nratio")
    checked = any(own.drift is not None for own in choices)
    for heading in (*columns, *(("drift\nfound",) if checked else ())):
        table.add_column(heading, justify="right")
    total = max((own.step for own in choices), default=-1) + 1
    shown = total if steps is None else min(steps, total)
    last = shown // 3 if shown < total else 0
    is_cut = False
    for own in choices:
        if shown - last <= own.step < total - last:
            if not is_cut:
                table.add_row("...", f"{total - shown} more")
            is_cut = True
            continue
        counts = [spread(own.count(reason)) for reason in REASONS[1:]]
        drift = ["" if own.drift is None else f"{own.drift:.3f}"] if checked else []
        of = f"{own.active} of {own.visible}"
        table.add_row(str(own.step), own.method, of, *counts, f"{own.flops_ratio:.3f}", *drift)
    return table


def spread(counts: Sequence[int]) -> str:
    """``7``, or ``5-9`` where samples differ."""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"


# ------------------------------------------------------------------------------------------------------ as a picture


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
    if path.suffix not in ENDINGS:
        raise ArgumentError(f"a picture is saved as {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}, got {path.name!r}")
    if not path.resolve().parent.is_dir():
        raise ArgumentError(f"there is no folder {path.resolve().parent} to write the picture to")
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
    figure.savefig(path, dpi=150)


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

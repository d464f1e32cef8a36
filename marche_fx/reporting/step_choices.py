"""Which tokens a session computed in each step, and why: as numbers and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from ..errors import ArgumentError
from ..runtime.program import Program
from ..runtime.records import REASONS
from ..runtime.session import Session

LETTERS = ".cqr"
"""One for each of `REASONS`, for a sample's tokens as text."""


@dataclass(frozen=True)
class StepChoices:
    """What one call of a step method computed.

    Attributes:
        step: number of the call among those of its method, 0 for the first; a call of which more was computed later,
            as more of its rows were read or a `Monitor` found it off, is there again. method: its name.
        active: tokens computed in each sample. visible: those that the original computes. read: those of the active
            ones whose results were computed; what follows the last attention runs for no others.
        reasons: uint8 ``[B, N]`` on the host, an index into `REASONS`: why each token was computed, or that it was not.
        flops_ratio: FLOPs computed over those of the original in a call.
        drift: how far cached rows were from exact ones, where a `Monitor` checked.
        square: of the token axis, the first token of a square image and how many it has; None where there is no image.
    """

    step: int
    method: str
    active: int
    visible: int
    read: int
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
        for name in ("step", "method", "active", "visible", "read", "flops_ratio", "drift"):
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
    programs = dict.fromkeys(record.program for record in records)
    squares = {
        program: square_of(program, [own for own in programs if own.tokens == program.tokens]) for program in programs
    }
    calls: dict[str, int] = {}
    found = []
    for record, own in zip(records, reasons):
        calls[record.name] = calls.get(record.name, -1) + (not record.again)
        ratio = record.flops / max(record.flops_of_call, 1.0)
        found.append(
            StepChoices(
                calls[record.name],
                record.name,
                record.active,
                record.visible,
                sum(record.read) if record.results is None else min(record.results, record.active),
                own,
                ratio,
                record.drift,
                squares[record.program],
            )
        )
    return tuple(found)


def square_of(program: Program, alike: Sequence[Program]) -> tuple[int, int] | None:
    """Where a square image lies on a token axis: the rows of a result if these are a square, or all tokens.

    Results are those of all programs ``alike``, with as many tokens: MAR's decoder returns the image, and its encoder
    has the same class tokens in front of it.
    """
    rows = [(row.offset, row.count) for own in alike for row in own.row_outputs if row and row.dims]
    places = [*rows, (0, program.tokens)]
    return next((own for own in places if own[1] > 1 and math.isqrt(own[1]) ** 2 == own[1]), None)


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

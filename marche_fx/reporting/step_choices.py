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
from ..runtime.findings import name_of_value
from ..runtime.program import Program
from ..runtime.records import REASONS, StepRecord
from ..runtime.session import Session
from .tables import add_row

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
        stream: number of the condition that it was called under. decoding_step: of that stream.
        moved: by watched value the tokens that it changed, bool ``[B, N]`` on the host; empty where all were new.
        score: ``[B, N]`` float32 on the host, by which the refreshed ones were chosen; None where none was needed.
        spared: bool ``[B, N]`` on the host, tokens that were read and left as they were; None where none may be.
        lines: of the loop, that read rows of the call.
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
    stream: int = 0
    decoding_step: int = 0
    moved: dict[str, Tensor] = field(default_factory=dict, repr=False)
    score: Tensor | None = field(default=None, repr=False)
    spared: Tensor | None = field(default=None, repr=False)
    lines: tuple[str, ...] = ()

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
    host = iter(to_host_at_once([own for record in records for own in tensors_of(record)]))
    names: dict[Program, list[str]] = {}
    programs = dict.fromkeys(record.program for record in records)
    squares = {
        program: square_of(program, [own for own in programs if own.tokens == program.tokens]) for program in programs
    }
    calls: dict[str, int] = {}
    found = []
    for record in records:
        program, call = record.program, record.call
        own = next(host)
        score = None if record.score is None else next(host)
        spared = None if record.spared is None else next(host)
        moved = [next(host) for _ in ([] if call is None else call.changed)]
        if program not in names:
            names[program] = [
                name_of_value(program, number, program.input_names) for number in range(len(program.watched))
            ]
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
                squares[program],
                record.stream,
                0 if call is None else call.step,
                by_name(names[program], moved, [own.start for own in program.watched], program.tokens),
                score,
                spared,
                () if call is None else tuple(dict.fromkeys(read.line for read in call.reads)),
            )
        )
    return tuple(found)


def by_name(names: Sequence[str], moved: Sequence[Tensor], starts: Sequence[int], count: int) -> dict[str, Tensor]:
    """The tokens that each watched value changed, bool ``[B, N]``; what a whole sample reads changes all of its.

    Args:
        moved: of each value, ``[B]`` or ``[B, n]``, where n are the tokens of its stream. starts: where these begin.
        count: N, the tokens of all streams.
    """
    found: dict[str, Tensor] = {}
    for name, own, start in zip(names, moved, starts):
        # Parts of one value have its name.
        tokens = found.setdefault(name, torch.zeros(len(own), count, dtype=torch.bool))
        if own.ndim == 1:
            tokens |= own[:, None]
        else:
            tokens[:, start : start + own.shape[1]] |= own
    return found


def tensors_of(record: StepRecord) -> list[Tensor]:
    """What is told of a record token by token: reasons, score and spared tokens where it has them, moved values."""
    moved = () if record.call is None else record.call.changed
    return [own for own in (record.reasons, record.score, record.spared, *moved) if own is not None]


def to_host_at_once(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of any dtypes and shapes, but for numbers, in one transfer."""
    device = tensors[0].device
    flat = [own.to(device).contiguous().view(torch.uint8).flatten() for own in tensors]
    parts = torch.cat(flat).cpu().split([own.numel() for own in flat])
    # A copy begins where values of several bytes may.
    return [part.clone().view(own.dtype).view(own.shape) for part, own in zip(parts, tensors)]


def square_of(program: Program, alike: Sequence[Program]) -> tuple[int, int] | None:
    """Where a square image lies on a token axis: the rows of a result if these are a square, or all tokens.

    Results are those of all programs ``alike``, with as many tokens: MAR's decoder returns the image, and its encoder
    has the same class tokens in front of it. Words are no image, however many they are.
    """
    if any(are_words(own) for own in alike):
        return None
    rows = [(row.offset, row.count) for own in alike for row in own.row_outputs if row and row.dims]
    places = [*rows, (0, program.tokens)]
    return next((own for own in places if own[1] > 1 and math.isqrt(own[1]) ** 2 == own[1]), None)


def are_words(program: Program) -> bool:
    """Whether the tokens of a step are numbers in a line, and so are what it returns for them.

    Codes of an image are such numbers too, where a model takes and gives them without rows and columns.
    """
    given = [node.meta["val"] for node in program.token_inputs]
    returned = [own.shape for own in program.row_outputs if own is not None]
    in_a_line = all(own.ndim == 2 for own in given) and all(len(shape) <= 3 for shape in returned)
    return bool(given) and in_a_line and not any(own.dtype.is_floating_point for own in given)


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
                add_row(table, "...", f"{total - shown} more")
            is_cut = True
            continue
        counts = [spread(own.count(reason)) for reason in REASONS[1:]]
        drift = ["" if own.drift is None else f"{own.drift:.3f}"] if checked else []
        of = f"{own.active} of {own.visible}"
        add_row(table, str(own.step), own.method, of, *counts, f"{own.flops_ratio:.3f}", *drift)
    return table


def spread(counts: Sequence[int]) -> str:
    """``7``, or ``5-9`` where samples differ."""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"

"""Why a session computed what it did: which values changed tokens, and which lines of the loop read rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor

from ..runtime.findings import name_of_value, to_host
from ..runtime.records import CallRecord, ReadRecord
from .tables import add_row

FEW = 8
"""So many samples are told of one by one."""


@dataclass(frozen=True)
class CallCauses:
    """What one call of a step method was about.

    Attributes:
        step: number of the call among those of its method. stream: the condition that it was called under.
        changed: by watched value how many tokens it changed, of all samples. reads: by line of the loop how many rows
            of each sample it read, None for a whole result, and the age of the oldest in steps.
        seconds: it took, where it was not the first of its kind.
        spared: rows read, of all samples, that the policy had no room to compute, and the age of the oldest in steps.
        kept: tokens of a sample whose rows calls of another length left, in the first call of a length.
    """

    step: int
    method: str
    stream: int
    changed: dict[str, int]
    reads: tuple[tuple[str, tuple[int, ...] | None, int], ...]
    seconds: float
    spared: tuple[int, int] = (0, 0)
    kept: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        reads = [
            {"line": line, "rows": None if rows is None else list(rows), "oldest": oldest}
            for line, rows, oldest in self.reads
        ]
        found = {"changed": self.changed, "kept": self.kept, "method": self.method, "reads": reads}
        return {**found, "seconds": self.seconds, "spared": list(self.spared), "step": self.step, "stream": self.stream}


def read_numbers(read: ReadRecord) -> list[Tensor]:
    """Rows of each sample, none for a whole result, the age of the oldest, and what the policy had no room for."""
    return [*(() if read.rows is None else read.rows.unbind()), read.oldest, *(read.spared or ())]


def causes_of(calls: Sequence[CallRecord]) -> tuple[CallCauses, ...]:
    """What calls were about, on the host; waits for the device once."""
    numbers = [
        number
        for own in calls
        for number in (
            *(moved.sum() for moved in own.changed),
            *(value for read in own.reads for value in read_numbers(read)),
        )
    ]
    host = iter(to_host(numbers))
    counts: dict[str, int] = {}
    found = []
    for own in calls:
        counts[own.name] = counts.get(own.name, -1) + 1
        changed: dict[str, int] = {}
        for number, moved in enumerate(own.changed):
            # What a whole sample reads changes all of its tokens.
            tokens = int(next(host)) * (own.program.tokens if moved.ndim == 1 else 1)
            if tokens:
                changed[name_of_value(own.program, number, own.program.input_names)] = tokens
        reads, spared = [], (0, 0)
        for read in own.reads:
            counts_of_samples = tuple(int(next(host)) for _ in range(0 if read.rows is None else len(read.rows)))
            line = f"{read.line}, by query" if read.by_query else read.line
            reads.append((line, counts_of_samples or None, int(next(host))))
            if read.spared is not None:
                spared = max(spared, (int(next(host)), int(next(host))))
        call = counts[own.name], own.name, own.stream, changed, tuple(reads), own.seconds, spared, own.kept
        found.append(CallCauses(*call))
    return tuple(found)


def oldest(causes: Sequence[CallCauses], *, whole: bool) -> int:
    """Age in steps of the oldest row that was read, by name or in a whole result."""
    return max((age for own in causes for _, rows, age in own.reads if (rows is None) == whole), default=0)


def causes_table(causes: Sequence[CallCauses]) -> Table:
    """A row for every value that changed tokens, and one for every line that read rows, over all calls."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("what changed tokens, and what read rows", overflow="fold")
    for heading in ("calls", "tokens of a call,\nrows of a sample", "oldest,\nsteps"):
        table.add_column(heading, justify="right")
    for row in changes_and_reads(causes):
        add_row(table, *row)
    return table


def changes_and_reads(causes: Sequence[CallCauses]) -> Iterator[tuple[str, str, str, str]]:
    """The cells of `causes_table`."""
    values: dict[str, list[int]] = {}
    lines: dict[tuple[str, bool], list[tuple[tuple[int, ...], int]]] = {}
    for own in causes:
        for name, tokens in own.changed.items():
            values.setdefault(name, []).append(tokens)
        for line, rows, age in own.reads:
            lines.setdefault((line, rows is None), []).append((rows or (), age))
    for name, counts in values.items():
        yield f"changed by {name}", str(len(counts)), mean(counts), ""
    for (line, _), read in lines.items():
        by_sample = [sum(own) / len(own) for own in zip(*(rows for rows, _ in read))]
        yield f"read at {line}", str(len(read)), shown(by_sample), str(max(age for _, age in read))


def shown(by_sample: Sequence[float]) -> str:
    """``7`` rows of each sample, ``7 7 64 64`` where samples differ, ``7-64`` where they are many."""
    if not by_sample:
        return "whole"
    differ = len(set(by_sample)) > 1
    few = by_sample if differ and len(by_sample) <= FEW else sorted({min(by_sample), max(by_sample)})
    return (" " if few is by_sample else "-").join(f"{own:.3g}" for own in few)


def mean(counts: Sequence[int]) -> str:
    return f"{sum(counts) / len(counts):.3g}"

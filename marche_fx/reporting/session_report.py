"""What a session computed, in numbers, as text and as a picture."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from ..errors import ArgumentError
from ..passes.trail import counted
from ..runtime.session import Session
from .causes import CallCauses, causes_of, causes_table, oldest
from .site_report import byte_count
from .step_choices import StepChoices, choices_of, choices_table
from .tables import add_row, as_text, memory

SHOWN_STEPS = 12
"""Steps of a session that are printed one by one."""


@dataclass(frozen=True)
class SessionReport:
    """What the last session computed; printable.

    Attributes:
        rows: by step method ``(method, calls, rows, rows of the original, FLOPs, FLOPs of the original)``.
        choices: call by call, which tokens of each sample, and why.
        causes: call by call, which values changed tokens and which lines of the loop read rows.
        streams: conditions that calls were made under, each with caches of its own. cache_bytes: of all of them.
        is_open: whether it goes on.
    """

    rows: tuple[tuple[str, int, int, int, float, float], ...]
    choices: tuple[StepChoices, ...] = field(default=(), repr=False)
    causes: tuple[CallCauses, ...] = field(default=(), repr=False)
    streams: int = 1
    cache_bytes: int = 0
    is_open: bool = False

    @property
    def flops_ratio(self) -> float:
        """FLOPs computed over those of the original."""
        return sum(row[4] for row in self.rows) / sum(row[5] for row in self.rows)

    @property
    def rows_ratio(self) -> float:
        return sum(row[2] for row in self.rows) / sum(row[3] for row in self.rows)

    @property
    def measured(self) -> float | None:
        """How many times faster a call was on average than one that computed all results; None before there was one.

        The first call of a kind, which captures and compiles, does not count. Of a wide result a loop that reads rows
        has them all computed in no call, so that nothing is there to compare with.
        """
        timed = [(own.seconds, number) for number, own in enumerate(self.causes) if own.seconds]
        whole = {own.step for own in self.choices if own.active >= own.visible and own.read >= own.visible}
        full = [seconds for seconds, number in timed if self.causes[number].step in whole]
        if not full or len(full) == len(timed):
            return None
        return (sum(full) / len(full)) / (sum(seconds for seconds, _ in timed) / len(timed))

    @property
    def verdict(self) -> str:
        """What the session comes to, in a line."""
        parts = [f"{self.rows_ratio:.0%} of the rows"]
        if any(rows is not None for own in self.causes for _, rows, _ in own.reads):
            parts.append(f"read rows at most {oldest(self.causes, whole=False)} steps old")
        if any(rows is None for own in self.causes for _, rows, _ in own.reads):
            parts.append(f"whole results with rows up to {oldest(self.causes, whole=True)} steps old")
        spared = [own.spared for own in self.causes if own.spared[0]]
        if spared:
            rows, age = sum(rows for rows, _ in spared), max(age for _, age in spared)
            parts.append(f"{rows} rows read as they were, up to {age} steps old, since the policy bounds the queried")
        kept = [own.kept for own in self.causes if own.kept]
        if kept:
            parts.append(f"{counted(len(kept), 'new length')} went on with {sum(kept)} rows of a sample")
        parts.append("1 stream" if self.streams == 1 else f"{self.streams} streams")
        fewer = f"{1 / self.flops_ratio:.1f}x fewer FLOPs" if self.flops_ratio else "no FLOPs"
        measured = self.measured
        parts.append(fewer if measured is None else f"{fewer}, {measured:.1f}x measured")
        return ("so far: " if self.is_open else "") + "; ".join(parts)

    def to_dict(self, *, tokens: bool = False) -> dict[str, Any]:
        """The same as plain values; with ``tokens`` also a letter for each token of each call, as in `StepChoices`."""
        names = ("step", "calls", "rows", "original_rows", "flops", "original_flops")
        return {
            "cache_bytes": self.cache_bytes,
            "causes": [own.to_dict() for own in self.causes],
            "choices": [own.to_dict(tokens=tokens) for own in self.choices],
            "flops_ratio": self.flops_ratio,
            "rows_ratio": self.rows_ratio,
            "steps": [dict(sorted(zip(names, row))) for row in self.rows],
            "streams": self.streams,
            "verdict": self.verdict,
        }

    def text(self, steps: int | None = SHOWN_STEPS) -> str:
        """What is printed, with so many steps one by one, or with all of them when None.

        Raises:
            ArgumentError: ``steps`` is not positive.
        """
        return as_text(
            Group(self.totals(), Text(self.memory()), causes_table(self.causes), choices_table(self.choices, steps))
        )

    def save_choices(
        self,
        path: str | Path,
        *,
        grid: tuple[int, int] | None = None,
        sample: int = 0,
        step_method: str | None = None,
    ) -> None:
        """Draw which tokens were computed in each step, and why: a panel a step where tokens are an image.

        Args:
            path: ends in ``.png``, ``.svg`` or ``.pdf``.
            grid: height and width of the image in tokens; tokens that are not of it are drawn above. When omitted, a
                square of the rows that the model returns or of all tokens, unless tokens are numbers in a line, as
                words are and codes of an image may be. Without a square, and for a grid of height or width 1, tokens
                are drawn from top to bottom and steps from left to right.
            sample: number of the sample. step_method: the one called last when omitted.

        Raises:
            ArgumentError: an argument is out of its range, there is no folder to write to, or no matplotlib.
        """
        if importlib.util.find_spec("matplotlib") is None:
            raise ArgumentError("a picture needs matplotlib: pip install 'marche-fx[cli]'")
        # It takes a while to load, and few sessions are drawn.
        from .picture import draw_choices

        draw_choices(self.choices, Path(path), grid=grid, sample=sample, step_method=step_method)

    def memory(self) -> str:
        """Streams and what their caches take."""
        kinds = "one stream of calls" if self.streams == 1 else f"{self.streams} streams of calls, told by their inputs"
        return f"{kinds}; caches {memory(self.cache_bytes)}"

    def totals(self) -> Table:
        table = Table(
            "this session" if self.is_open else "last session",
            "calls",
            "rows computed",
            "rows of the original",
            "FLOPs ratio",
        )
        for name, calls, rows, original, flops, original_flops in self.rows:
            add_row(table, name, str(calls), f"{rows:,}", f"{original:,}", f"{flops / original_flops:.3f}")
        return table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.totals()
        yield Text(self.memory())
        yield causes_table(self.causes)
        yield choices_table(self.choices, SHOWN_STEPS)

    def __str__(self) -> str:
        return as_text(self)


def session_report(session: Session, *, is_open: bool = False) -> SessionReport:
    by_name: dict[str, list[Any]] = {}
    for call in session.log.calls:
        row = by_name.setdefault(call.name, [call.name, 0, 0, 0, 0.0, 0.0])
        if not call.active:
            # Nobody read it, so nothing was computed; the original would have.
            tokens = call.program.tokens
            row[1], row[3] = row[1] + 1, row[3] + tokens * call.program.samples
            row[5] += call.program.cost.original(tokens)
    for record in session.records:
        row = by_name.setdefault(record.name, [record.name, 0, 0, 0, 0.0, 0.0])
        computed = not record.again, record.rows, record.original_rows, record.flops, record.original_flops
        for column, amount in enumerate(computed, 1):
            row[column] += amount
    kept = {(own.stream, own.program) for own in session.records}
    specs = [spec for _, program in kept for spec in program.split.caches]
    specs += [program.head.spec for _, program in session.log.wide if program.head is not None]
    return SessionReport(
        tuple(tuple(row) for row in by_name.values()),
        choices_of(session),
        causes=causes_of(session.log.calls),
        is_open=is_open,
        streams=len({own.stream for own in session.records}),
        cache_bytes=byte_count(specs),
    )

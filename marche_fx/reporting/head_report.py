"""What was found in a captured denoiser, and what of it ran when."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text
from torch import fx

from ..head.program import HeadProgram
from ..head.step import HeadStep
from ..passes.analysis.residual import ResidualBranch
from ..passes.capture.captured import argument_names
from ..passes.graph.reach import ancestors
from ..passes.graph.source import describe
from ..passes.rules.flops import node_flops
from ..passes.trail import counted
from .tables import add_row, short

PARTS = {
    "still": "the condition alone: once a denoising",
    "timed": "the time alone: for all timesteps at once",
    "slow": "time and condition",
    "network": "the noisy value, row by row",
    "around": "the noisy value, around the network",
}


@dataclass(frozen=True)
class HeadPart:
    """Operators that depend on the same arguments.

    Attributes:
        flops: of their products, for a row. share: of those of all parts.
    """

    name: str
    operators: int
    flops: float
    share: float


@dataclass(frozen=True)
class SlowValue:
    """A value that moves with the time and is the same for every noisy value.

    Attributes:
        operator: the last one that makes it, with its module and line. causes: the arguments that it depends on.
        flops: of the products on the way that no other slow value needs before it, for a row.
    """

    operator: str
    causes: tuple[str, ...]
    flops: float


@dataclass(frozen=True)
class Branch:
    """A residual branch.

    Attributes:
        operator: the sum that adds it, with its module and line. held: what of it is held between calls: ``"whole"``,
            its ``"product"``, or nothing. flops: of its products, for a row.
    """

    operator: str
    held: str
    flops: float


@dataclass(frozen=True)
class HeadReport:
    """One denoiser; printable.

    Attributes:
        path: of the method. reuse: the policy. roles: by argument of the captured method what it is; empty before it is
            captured. parts: what it consists of. halves: whether guidance halves were found, and where rows meet.
        slow_values: what depends on time and condition and not on the noisy value. branches: residual branches.
        refused: why calls ran as they are. as_is: how many did, those before the capture among them.
        denoisings: how many are told of. calls, flops_ratio: of these, over the original's FLOPs.
        last: of the last one each call, ``F`` in full or ``c`` the conditional half; with branches held ``H``, ``h``.
        slow: timesteps at which its values of time and condition were computed.
    """

    path: str
    reuse: str
    roles: dict[str, str]
    parts: tuple[HeadPart, ...]
    halves: str
    slow_values: tuple[SlowValue, ...]
    branches: tuple[Branch, ...]
    refused: tuple[str, ...]
    as_is: int
    denoisings: int
    calls: int
    flops_ratio: float
    last: str
    slow: int

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(f"\n{self.path}", "bold") + Text(f": denoiser, {self.reuse}", "not bold")
        for reason in self.refused:
            yield Text(f"runs as it is: {reason}", "yellow")
        if not self.roles:
            if not self.refused:
                yield Text("not captured yet: the first calls tell which argument is what")
            return
        yield Text("; ".join(f"{name}: {role}" for name, role in self.roles.items()))
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("depends on")
        for heading in ("operators", "FLOPs of a row", "of all"):
            table.add_column(heading, justify="right")
        for part in self.parts:
            add_row(table, PARTS[part.name], str(part.operators), short(part.flops), f"{part.share:.1%}")
        yield table
        if self.slow_values:
            yield Text("slow values, the same for every noisy value:")
        for value in self.slow_values:
            yield Text(f"  {value.operator}, of {' and '.join(value.causes)}: {short(value.flops)} FLOPs of a row")
        if self.branches:
            yield Text("residual branches:")
        for branch in self.branches:
            held = f", held: {branch.held}" if branch.held else ""
            yield Text(f"  {branch.operator}: {short(branch.flops)} FLOPs of a row{held}")
        yield Text(self.halves)
        if self.calls:
            told = f"{self.calls} calls in {counted(self.denoisings, 'denoising')}"
            yield Text(f"{told}, {self.flops_ratio:.2f} of the original's FLOPs; {self.as_is} calls ran as they are")
            yield Text(f"last denoising: {self.last}, slow values computed at {self.slow} timesteps")


def head_report(step: HeadStep) -> HeadReport:
    """What is known of a denoiser so far."""
    program = next(reversed(step.programs.values()), None)
    record = step.record
    last = record.denoisings[-1] if record.denoisings else None
    return HeadReport(
        step.path,
        repr(step.reuse),
        {} if program is None else roles_by_name(step, program),
        () if program is None else parts_of(program),
        "" if program is None else program.halves,
        () if program is None else slow_values_of(step, program),
        () if program is None else branches_of(program),
        tuple(reason for _, reason in step.refused.items()),
        record.as_is,
        len(record.denoisings),
        record.calls,
        record.flops_ratio,
        "" if last is None else last.calls,
        0 if last is None else last.slow,
    )


def roles_by_name(step: HeadStep, program: HeadProgram) -> dict[str, str]:
    names = argument_names(step.original, program.denoiser.rows.capture)
    return dict(zip(names, program.denoiser.roles.values(), strict=True))


def parts_of(program: HeadProgram) -> tuple[HeadPart, ...]:
    found = program.denoiser
    around = [node for node in found.noisy if node not in {*found.network}]
    counts = {name: len(getattr(found, name)) for name in ("still", "timed", "slow", "network")} | {
        "around": len(around)
    }
    total = max(found.flops_per_row, 1)
    return tuple(
        HeadPart(name, count, found.flops[name], found.flops[name] / total) for name, count in counts.items() if count
    )


def slow_values_of(step: HeadStep, program: HeadProgram) -> tuple[SlowValue, ...]:
    """Those that the network reads, in their order."""
    found, names = program.denoiser, argument_names(step.original, program.denoiser.rows.capture)
    arguments = dict(zip(found.roles, names, strict=True))
    known: set[fx.Node] = set()
    values = []
    for node in found.kept:
        before = ancestors([node])
        own = before & {*found.slow} - known
        known |= own
        causes = tuple(name for argument, name in arguments.items() if argument in before)
        values.append(SlowValue(describe(node), causes, sum(map(node_flops, own)) / found.rows.rows))
    return tuple(values)


def branches_of(program: HeadProgram) -> tuple[Branch, ...]:
    held = {*program.parts.held}

    def what(own: ResidualBranch) -> str:
        return "whole" if own.output in held else "product" if own.product in held else ""

    return tuple(
        Branch(describe(own.add), what(own), own.flops / program.denoiser.rows.rows)
        for own in program.denoiser.branches
    )

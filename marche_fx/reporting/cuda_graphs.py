"""What became of the steps of a model that were to run as CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from ..passes.trail import counted
from ..runtime.graphs.counts import GraphCounts
from ..runtime.graphs.store import Graphs
from ..runtime.program import Program
from .tables import add_row, as_text, memory


@dataclass(frozen=True)
class CudaGraphsReport:
    """Counts since the model was transformed; printable.

    Attributes:
        steps: name and counts of each captured step. size: bytes that graphs keep. dropped: kinds of steps whose graphs
            went, for others or for weights that are elsewhere by now.
    """

    steps: tuple[tuple[str, GraphCounts], ...]
    size: int = 0
    dropped: int = 0

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        headings = ("as CUDA graphs", "steps", "replayed", "recorded", "first of a kind", "without", "padding", "waits")
        table = Table(*headings)
        for name, own in self.steps:
            numbers = (own.steps, own.replays, own.recorded, own.first, sum(own.without.values()))
            padding = f"{own.padding / own.rows:.0%}" if own.rows else ""
            add_row(table, name, *map(str, numbers), padding, str(own.waits))
        yield table
        for line in self.lines():
            yield Text(line)

    def lines(self) -> Iterator[str]:
        """What the table does not tell."""
        captures = sum(own.captures for _, own in self.steps)
        gone = f"; {counted(self.dropped, 'kind')} of steps went for others" if self.dropped else ""
        yield f"{counted(captures, 'CUDA graph')} recorded, {memory(self.size)} kept{gone}"
        for name, own in self.steps:
            for reason, count in own.without.most_common():
                yield f"{name}: {counted(count, 'step')} ran operator by operator, since {reason}"
            for place, why in own.apart.items():
                yield f"{name}: graphs are cut at {place}, which cannot be recorded: {why}"

    def summary(self) -> Iterator[str]:
        """All of it as lines."""
        for name, own in self.steps:
            yield f"{name}: {own.replays + own.recorded} of {counted(own.steps, 'step')} ran as CUDA graphs"
        yield from self.lines()

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        steps = [{"name": name, **asdict(own), "without": dict(own.without)} for name, own in self.steps]
        return {"steps": steps, "size": self.size, "dropped": self.dropped}

    def __str__(self) -> str:
        return as_text(self)


def cuda_graphs_report(store: Graphs | None, programs: Sequence[Program]) -> CudaGraphsReport | None:
    """What is told of the graphs of a model; None where it was not to have any."""
    if store is None:
        return None
    steps = tuple((own.step, own.graphs.counts) for own in programs if own.graphs is not None)
    return CudaGraphsReport(steps, store.size, store.dropped)

"""What became of the steps of one program that were to run as graphs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class GraphCounts:
    """Counts of one program's steps, in all sessions.

    Attributes:
        captures: graphs that were recorded. recorded: steps in which some were, each launched as soon as it was.
        replays: steps that were launched as graphs of earlier ones. first: steps that ran operator by operator since
            they were the first of their kind.
        rows: of a sample, that were computed in all these. padding: of these, those that only fill a bucket.
        waits: steps before which the host waited for the number of active tokens.
        without: other steps, which ran operator by operator, by the reason.
        apart: operators that no graph can hold, with why; graphs are cut there.
    """

    captures: int = 0
    recorded: int = 0
    replays: int = 0
    first: int = 0
    rows: int = 0
    padding: int = 0
    waits: int = 0
    without: Counter[str] = field(default_factory=Counter)
    apart: dict[str, str] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return self.recorded + self.replays + self.first + sum(self.without.values())

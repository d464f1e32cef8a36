"""Two policies at once: ``SelectiveRefresh(0.05) + StalenessRefresh(0.05)``."""

from __future__ import annotations

from dataclasses import dataclass

from .history import History, Refresh, RefreshPolicy
from .signals import Signal


@dataclass(frozen=True)
class Both(RefreshPolicy):
    """The tokens that ``first`` chooses, then, with its own budget, those that ``second`` does of the rest.

    A step that either wants in full is in full.
    """

    first: RefreshPolicy
    second: RefreshPolicy

    @property
    def tolerance(self) -> float:  # type: ignore[override]
        return min(self.first.tolerance, self.second.tolerance)

    @property
    def exact_sites(self) -> int:  # type: ignore[override]
        return max(self.first.exact_sites, self.second.exact_sites)

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.first.signals, *self.second.signals)))

    def choose(self, history: History) -> Refresh:
        first, second = self.first.choose(history), self.second.choose(history)
        count = first.count + second.count
        if count >= history.tokens or first.priority is None or second.priority is None:
            # A choice without a priority is of none or of all.
            return Refresh(min(count, history.tokens), second.priority if first.priority is None else first.priority)
        taken = [own for own in (history.changed, history.queried) if own is not None]
        score = first.priority.float()
        for must in taken:
            score = score.masked_fill(must, float("-inf"))
        chosen = score.topk(first.count, 1).indices
        return Refresh(count, second.priority.float().scatter(1, chosen, float("inf")))

    def __repr__(self) -> str:
        return f"{self.first!r} + {self.second!r}"

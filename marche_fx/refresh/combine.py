"""Two policies at once: ``SelectiveRefresh(0.05) + StalenessRefresh(0.05)``."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

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
        spent = history.spent_by_parts.setdefault(id(self), [0.0, 0.0])
        first, second = (
            policy.choose(replace(history, spent=own)) for policy, own in zip((self.first, self.second), spent)
        )
        count = first.count + second.count
        if count < history.tokens:
            spent[:] = [own + part.count / history.tokens for own, part in zip(spent, (first, second))]
        if count >= history.tokens or first.priority is None or second.priority is None:
            # A choice without a priority is of none or of all.
            return Refresh(min(count, history.tokens), second.priority if first.priority is None else first.priority)
        taken = [own for own in (history.changed, history.queried) if own is not None]
        score = first.priority.float()
        for must in taken:
            score = score.masked_fill(must, -math.inf)
        chosen = score.topk(first.count, 1).indices
        # Above every number that the second gives; NaN of the first stays to be refused.
        rest = second.priority.float().clamp(max=torch.finfo(torch.float32).max / 2)
        ranked = rest.scatter(1, chosen, math.inf)
        return Refresh(count, ranked.masked_fill(first.priority.isnan(), math.nan))

    def __repr__(self) -> str:
        return f"{self.first!r} + {self.second!r}"

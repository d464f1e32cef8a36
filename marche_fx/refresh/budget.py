"""How many tokens to refresh in a step: a share of the token axis, the same in every step or not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..checks import called, check_count, check_not_negative, check_share, is_number, shown
from ..errors import ArgumentError, PolicyError
from .history import History
from .signals import Signal, ValueDrift


@dataclass(frozen=True)
class CosineBudget:
    """From ``start`` in the first step to ``end`` after ``steps``, along half a cosine; ``end`` from then on."""

    start: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        check_share("start", self.start)
        check_share("end", self.end)
        check_count("steps", self.steps, least=1)

    def share(self, history: History) -> float:
        done = min(history.step / self.steps, 1.0)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class AdaptiveBudget:
    """``mean`` on average over a generation, more of it where the values of refreshed tokens move more than usual.

    A step spends what is left of the mean so far, raised or lowered in proportion to the measured drift, so what was
    spent early is saved later: over T steps the average departs from ``mean`` by at most ``mean * gain / T`` as long as
    ``low`` and ``high`` do not bind.

    Args:
        low, high: bounds of a step's share. gain: how much a drift of twice the usual adds, in units of ``mean``.
    """

    mean: float
    low: float = 0.0
    high: float = 0.5
    gain: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mean", "low", "high"):
            check_share(name, getattr(self, name))
        if not self.low <= self.mean <= self.high:
            raise ArgumentError(f"mean must lie between low and high, got {self.low} <= {self.mean} <= {self.high}")
        check_not_negative("gain", self.gain)
        if self.gain == math.inf:
            raise ArgumentError("gain must be finite")

    @property
    def signals(self) -> tuple[Signal, ...]:
        return (ValueDrift(),)

    def share(self, history: History) -> float:
        usual, now = history.usual_drift, history.mean_drift
        excess = 0.0 if not usual or now is None else min(max(now / usual - 1, -1.0), 1.0)
        owed = self.mean * (history.partial_steps + 1) - history.spent
        return min(max(owed + self.gain * self.mean * excess, self.low), self.high)


Budget = float | Sequence[float] | Callable[[int], float] | CosineBudget | AdaptiveBudget
"""A share 0..1 of the token axis: the same in every step, one a step (the last for all after it), a function of the
step, or a schedule."""


def share_of(budget: Budget, history: History) -> float:
    """The share of the token axis to refresh in the step about to run.

    Raises:
        PolicyError: a function of the step gave no number in 0..1.
    """
    if isinstance(budget, (CosineBudget, AdaptiveBudget)):
        return budget.share(history)
    if isinstance(budget, Sequence):
        return budget[min(history.step, len(budget) - 1)]
    if callable(budget):
        share = called("a budget, with the number of the step,", budget, history.step)
        if not is_number(share) or not 0 <= share <= 1:
            raise PolicyError(f"the budget of step {history.step} must lie in 0..1, got {shown(share)}")
        return share
    return budget


def check_budget(budget: Budget) -> None:
    if isinstance(budget, Sequence) and not isinstance(budget, str):
        if not budget:
            raise ArgumentError("fraction must name the share of at least one step, got an empty list")
        for share in budget:
            check_share("fraction", share)
    elif not callable(budget) and not isinstance(budget, (CosineBudget, AdaptiveBudget)):
        check_share("fraction", budget)

"""What a policy sees, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..checks import check_count
from ..errors import ArgumentError
from .signals import Signal

SMOOTHING = 0.4
"""Weight of the last measurement in a smoothed signal."""


@dataclass
class History:
    """The state of one token axis of a session, B samples of N tokens.

    Attributes:
        age: ``[B, N]`` float32, steps since each token was last recomputed.
        step: decoding steps done so far; 0 in the first.
        changed, queried: bool ``[B, N]``, the tokens that the step about to run computes in any case.
        spent: tokens of a sample refreshed so far, over N; steps in full do not count.
        partial_steps: steps so far that were not in full.
        mean_drift: how far the values of refreshed tokens moved on average, over their norm, in a recent step; None
            until it was measured, which only an `AdaptiveBudget` asks for. usual_drift: the same over all steps so far.
        spent_by_parts: of each `Both` by its id, what its two policies have spent.
    """

    age: Tensor
    step: int = 0
    changed: Tensor | None = None
    queried: Tensor | None = None
    spent: float = 0.0
    partial_steps: int = 0
    mean_drift: float | None = None
    usual_drift: float | None = None
    spent_by_parts: dict[int, list[float]] = field(default_factory=dict, repr=False)
    signals: dict[Signal, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    look: Callable[[], Tensor | None] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.age, Tensor) or self.age.ndim != 2:
            got = list(self.age.shape) if isinstance(self.age, Tensor) else type(self.age).__name__
            raise ArgumentError(f"age must be a tensor of samples and tokens [B, N], got {got}")
        check_count("step", self.step)

    @property
    def exact(self) -> Tensor | None:
        """bool ``[B, N]``, tokens whose cached rows are what computing everything in this step would give.

        Nothing that they see has moved, as in a finished block under a mask that is causal from block to block. None
        where every token sees every other, or nobody knows.
        """
        return None if self.look is None else self.look()

    @property
    def samples(self) -> int:
        return int(self.age.shape[0])

    @property
    def tokens(self) -> int:
        """Length N of the token axis."""
        return int(self.age.shape[1])

    def latest(self, signal: Signal) -> Tensor | None:
        """``[B, N]`` float32; None before it was first measured."""
        return self.signals[signal][0] if signal in self.signals else None

    def smoothed(self, signal: Signal) -> Tensor | None:
        """The same averaged over the steps so far, the last with `SMOOTHING` of the weight."""
        return self.signals[signal][1] if signal in self.signals else None

    def of(self, rows: Callable[[Tensor], Tensor]) -> History:
        """The same of other tokens, whose numbers ``rows`` takes from those ``[B, N]`` of these."""
        signals = {own: (rows(last), rows(smooth)) for own, (last, smooth) in self.signals.items()}
        spent = {part: [*own] for part, own in self.spent_by_parts.items()}
        return replace(
            self, age=rows(self.age), changed=None, queried=None, look=None, signals=signals, spent_by_parts=spent
        )

    def observe(self, signal: Signal, now: Tensor) -> None:
        """Take in a measurement ``[B, N]``, NaN where a token was not measured."""
        measured = ~now.isnan()
        last, smooth = self.signals.get(signal, (torch.zeros_like(now), now.nan_to_num()))
        smooth = torch.where(measured, torch.lerp(smooth, now.nan_to_num(), SMOOTHING), smooth)
        self.signals[signal] = torch.where(measured, now, last), smooth


@dataclass(frozen=True)
class Refresh:
    """A policy's choice for one step.

    Attributes:
        count: tokens of each sample to recompute beside the changed and queried ones; N or more for all.
        priority: ``[B, N]``, higher is recomputed first; None where ``count`` decides alone (none or all).
        queried: so many of each sample's queried tokens are computed, those of the highest ``urgency [B, N]``, or of
            the highest priority where that is None; all of them where this is None. Results of the others stay as they
            are, however old, unless they changed or are refreshed.
        by_policy: priorities as policies gave them, each behind its policy's name, so that NaN can be told of one; not
            for a policy to give.
    """

    count: int
    priority: Tensor | None = None
    queried: int | None = None
    urgency: Tensor | None = None
    by_policy: tuple[tuple[str, Tensor], ...] = field(default=(), repr=False)


def everything(history: History) -> Refresh:
    return Refresh(count=history.tokens)

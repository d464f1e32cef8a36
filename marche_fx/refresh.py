"""Refresh policies: which cached tokens to recompute beside the changed and the queried ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from .errors import ArgumentError


@dataclass
class History:
    """What a policy may look at: the state of one token axis of a session.

    Attributes:
        step: decoding steps done so far; 0 in the first.
        age: ``[B, N]`` float32, steps since each token was last recomputed.
        attention: ``[B, N]`` float32, the attention that each key received from the queried tokens of the step before,
            mean over the observed sites; None before the first step has run.
        smooth_attention: the same averaged over the steps so far, the last with `SMOOTHING` of the weight.
    """

    age: Tensor
    step: int = 0
    attention: Tensor | None = None
    smooth_attention: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Length N of the token axis."""
        return int(self.age.shape[1])

    def observe(self, attention: Tensor) -> None:
        self.attention = attention
        before = self.smooth_attention
        self.smooth_attention = attention if before is None else torch.lerp(before, attention, SMOOTHING)


SMOOTHING = 0.4


@dataclass(frozen=True)
class Refresh:
    """A policy's choice for one step.

    Attributes:
        count: tokens of each sample to recompute beside the changed and queried ones.
        priority: ``[B, N]``, higher is recomputed first; None where ``count`` decides alone (none or all).
    """

    count: int
    priority: Tensor | None = None


class RefreshPolicy(Protocol):
    """What `transform` takes as ``refresh``: any object with these."""

    @property
    def tolerance(self) -> float:
        """How far a token's input may move, relative to its norm, before the token counts as changed."""
        ...

    @property
    def sites(self) -> int:
        """Attention sites to observe, counted from the first; 0 for none."""
        ...

    def choose(self, history: History) -> Refresh:
        """The choice for the step that is about to run."""
        ...


def everything(history: History) -> Refresh:
    return Refresh(count=history.tokens)


@dataclass(frozen=True)
class FullRefresh:
    """Recompute every token in every step: the original's result."""

    tolerance: float = field(default=0.0, init=False)
    sites: int = field(default=0, init=False)

    def choose(self, history: History) -> Refresh:
        return everything(history)


@dataclass(frozen=True)
class SelectiveRefresh:
    """Recompute the tokens that the queried ones attend to most (selective KV refresh, MARché, arXiv 2506.12035).

    The priority of a token is the attention it received from the queried tokens, smoothed over steps, times its age: a
    stale row harms by the attention paid to it times how far it has moved.

    Args:
        fraction: share of the token axis to refresh in each step, 0..1.
        warmup: first steps to compute in full.
        every: compute every so many steps in full; never when None.
        sites: attention sites to observe, from the first on.
        age: False for the paper's signal, the attention of the step before alone.
        tolerance: relative movement of a token's input that counts as drift, not as change.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    fraction: float = 0.1
    warmup: int = 3
    every: int | None = None
    sites: int = 2
    age: bool = True
    tolerance: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.fraction <= 1:
            raise ArgumentError(f"fraction must lie in 0..1, got {self.fraction}")
        if self.warmup < 0:
            raise ArgumentError(f"warmup must not be negative, got {self.warmup}")
        if self.every is not None and self.every < 1:
            raise ArgumentError(f"every must be at least 1 or None, got {self.every}")
        if self.sites < 1:
            raise ArgumentError(f"sites must be at least 1, got {self.sites}")
        if self.tolerance < 0:
            raise ArgumentError(f"tolerance must not be negative, got {self.tolerance}")

    def choose(self, history: History) -> Refresh:
        full = history.step < self.warmup or (self.every is not None and history.step % self.every == 0)
        if full or self.fraction == 1:
            return everything(history)
        count = round(self.fraction * history.tokens)
        if history.smooth_attention is None or history.attention is None:
            return Refresh(count, history.age)
        return Refresh(count, history.smooth_attention * history.age if self.age else history.attention)

"""What a study finds of a variant in a loop, whatever the answers are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from ...tuning.intervals import LEVEL, Interval
from ..metrics import RESAMPLES
from .lines import Line


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A variant in a loop.

    Attributes:
        same: share of the answers' tokens that are the original's with the same noise, a 95% interval over answers.
            identical: share of the answers in which all are.
        rows, results, flops: of the layers, and of the logits, over the original's in all of its steps.
        seconds_ratio: over the original's, median over the batches that one process decoded with both; None where
            there are none.
    """

    loop: str
    variant: str
    policy: str
    same: Interval
    identical: float
    rows: float
    results: float
    flops: float
    seconds_ratio: float | None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """What `dataclasses.asdict` made of a row."""
        intervals = [own.name for own in fields(cls) if own.type == Interval.__name__]
        return cls(**{**values, **{name: Interval(**values[name]) for name in intervals}})


def shared_figures(own: Sequence[Line], original: Sequence[Line]) -> dict[str, Any]:
    """Those of a `StudyRow`, of the lines of a variant and of the original for the same batches."""
    same = (answers_of(own) == answers_of(original)).double().mean(1)
    first = own[0]
    return {
        "loop": first.loop,
        "variant": first.variant,
        "policy": first.policy,
        "same": interval_of(same),
        "identical": (same == 1).double().mean().item(),
        "rows": statistics.mean(line.rows for line in own),
        "results": statistics.mean(line.results for line in own),
        "flops": statistics.mean(line.flops for line in own),
        "seconds_ratio": seconds_ratio(own, original),
    }


def answers_of(lines: Sequence[Line]) -> Tensor:
    """``[P, A]``."""
    return torch.tensor([answer for line in lines for answer in line.answers])


def interval_of(values: Tensor, *, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of ``values [P]`` and a 95% interval: quantiles of the means of P drawn with replacement."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(values), (resamples, len(values)), generator=generator)
    tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=values.dtype)
    low, high = values[drawn].mean(1).quantile(tails).tolist()
    return Interval(values.mean().item(), low, high)


def seconds_ratio(own: Sequence[Line], original: Sequence[Line]) -> float | None:
    ratios = [a.seconds / b.seconds for a, b in zip(own, original, strict=True) if a.run == b.run]
    return statistics.median(ratios) if ratios else None

"""What the study finds: a row for each loop and variant."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...models.text import distinct
from ..metrics import LEVEL, RESAMPLES, Interval
from .judges import OtherJudge
from .lines import Line


@dataclass(frozen=True)
class TextRow:
    """A variant in a loop, over P prompts.

    Attributes:
        same: share of the pieces that are the original's with the same noise, a 95% interval over prompts. identical:
            share of the answers in which all are.
        rows, results, flops: of the layers, and of the logits, over the original's in all of its steps.
        seconds_ratio: over the original's, median over the batches that one process decoded with both; None where
            there are none.
        perplexity: of the answers under the exact model, `nats_of_answers`. perplexity_over_original: over that of the
            original's answers to the same prompts.
        bits_per_byte: under the 5-gram model, mean over answers; None where no text was given.
        distinct: share of different 4-grams of each answer, mean over answers.
    """

    loop: str
    variant: str
    policy: str
    prompts: int
    same: Interval
    identical: float
    rows: float
    results: float
    flops: float
    seconds_ratio: float | None
    perplexity: float
    perplexity_over_original: Interval
    bits_per_byte: float | None
    distinct: float

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TextRow:
        intervals = {name: Interval(**values[name]) for name in ("same", "perplexity_over_original")}
        return cls(**{**values, **intervals})


def text_row(own: Sequence[Line], original: Sequence[Line], prompts: Tensor, judge: OtherJudge | None) -> TextRow:
    """Of the lines of a variant, and of the original, for the same batches of ``prompts [P, ...]``."""
    answers, exact = answers_of(own), answers_of(original)
    same = (answers == exact).double().mean(1)
    nats, exact_nats = (torch.tensor([value for line in lines for value in line.nats]) for lines in (own, original))
    over = interval_of((nats - exact_nats).double())
    first = own[0]
    return TextRow(
        loop=first.loop,
        variant=first.variant,
        policy=first.policy,
        prompts=len(answers),
        same=interval_of(same),
        identical=(same == 1).double().mean().item(),
        rows=statistics.mean(line.rows for line in own),
        results=statistics.mean(line.results for line in own),
        flops=statistics.mean(line.flops for line in own),
        seconds_ratio=seconds_ratio(own, original),
        perplexity=math.exp(nats.mean().item()),
        perplexity_over_original=Interval(*(math.exp(value) for value in (over.estimate, over.low, over.high))),
        bits_per_byte=None if judge is None else statistics.mean(judge.bits_per_byte(prompts, answers)),
        distinct=statistics.mean(distinct(answer[None]) for answer in answers),
    )


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

"""What the study of text finds: a row for each loop and variant."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...models.text import distinct
from ...tuning.intervals import Interval
from ..study.figures import StudyRow, answers_of, interval_of, shared_figures
from ..study.lines import Line
from .judges import OtherJudge


@dataclass(frozen=True, kw_only=True)
class TextRow(StudyRow):
    """A variant in a loop, over P prompts.

    Attributes:
        perplexity: of the answers under the exact model, `nats_of_answers`. perplexity_over_original: over that of the
            original's answers to the same prompts.
        bits_per_byte: under the 5-gram model, mean over answers; None where no text was given.
        distinct: share of different 4-grams of each answer, mean over answers.
    """

    prompts: int
    perplexity: float
    perplexity_over_original: Interval
    bits_per_byte: float | None
    distinct: float


def text_row(own: Sequence[Line], original: Sequence[Line], prompts: Tensor, judge: OtherJudge | None) -> TextRow:
    """Of the lines of a variant, and of the original, for the same batches of ``prompts [P, ...]``."""
    answers = answers_of(own)
    nats, exact_nats = (torch.tensor([value for line in lines for value in line.nats]) for lines in (own, original))
    over = interval_of((nats - exact_nats).double())
    return TextRow(
        **shared_figures(own, original),
        prompts=len(answers),
        perplexity=math.exp(nats.mean().item()),
        perplexity_over_original=Interval(*(math.exp(value) for value in (over.estimate, over.low, over.high))),
        bits_per_byte=None if judge is None else statistics.mean(judge.bits_per_byte(prompts, answers)),
        distinct=statistics.mean(distinct(answer[None]) for answer in answers),
    )

"""How good generated images are: a judge that the user gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ..checks import called, is_number, shown
from ..errors import ArgumentError
from .intervals import Spread

RESAMPLES = 1000

STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Quantiles of Student's t at 97.5% by degrees of freedom, from 1; above these the last one, a little wide."""

NORMAL = 1.96


@runtime_checkable
class Judge(Protocol):
    """Judges batches of images of one seed each; less is better."""

    def statistics(self, images: Any) -> Tensor:
        """What is kept of the images of a batch."""

    def spread(self, batches: Sequence[Tensor]) -> Spread:
        """The judgement of several batches by what was kept of each, with resamples.

        Those of as many other batches must be of the same draws, so that two models can be compared seed by seed.
        """


@dataclass(frozen=True)
class NumberJudge:
    """Judges by a function of a batch of images to a number, of which the mean over batches counts.

    Its intervals resample batches, and are as wide as Student's t has it for as few as there are.
    """

    function: Callable[[Any], float]

    def statistics(self, images: Any) -> Tensor:
        value = called("judge, with images,", self.function, images)
        if isinstance(value, Tensor) and value.numel() == 1:
            value = float(value)
        if not is_number(value):
            raise ArgumentError(f"judge must give a number for the images of a seed, got {shown(value)}")
        return torch.tensor([value], dtype=torch.float64)

    def spread(self, batches: Sequence[Tensor]) -> Spread:
        values, count = torch.cat(list(batches)), len(batches)
        if count < 2:
            raise ArgumentError(
                "a judge that gives a number for a batch needs two seeds or more to tell how sure it is"
            )
        generator = torch.Generator().manual_seed(0)
        means = values[torch.randint(count, (RESAMPLES, count), generator=generator)].mean(1)
        # A resample of few batches varies less than another few batches would.
        wider = STUDENT[min(count - 1, len(STUDENT)) - 1] / NORMAL * (count / (count - 1)) ** 0.5
        mean = values.mean()
        return Spread(float(mean), mean + wider * (means - means.mean()))


def judge_of(given: Judge | Callable[[Any], float]) -> Judge:
    """The judge that was given; a function of images to a number is one too.

    Raises:
        ArgumentError: it is none.
    """
    if isinstance(given, Judge):
        return given
    if callable(given):
        return NumberJudge(given)
    raise ArgumentError(f"judge must be a function of images to a number, or have statistics and spread, got {given!r}")

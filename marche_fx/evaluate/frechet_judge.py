"""The Frechet distance as what a search for a recipe goes by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models import Judge
from ..tuning.intervals import Spread
from .metrics import frechet


@dataclass(frozen=True)
class FrechetJudge:
    """Judges images by their features, which should be spread as those of real ones are.

    Attributes:
        features: of a batch of images, ``[b, D]``. mean, covariance: of real images' features, ``[D]`` and ``[D, D]``.
    """

    features: Callable[[Tensor], Tensor]
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, judge: Judge) -> FrechetJudge:
        """By a classifier that carries the statistics of its test set, such as `load_judge`."""
        return cls(judge.all_features, judge.feature_mean, judge.feature_covariance)

    def statistics(self, images: Tensor) -> Tensor:
        return self.features(images).double()

    def spread(self, batches: Sequence[Tensor]) -> Spread:
        return frechet(torch.cat(list(batches)), self.mean.cpu(), self.covariance.cpu())

"""An estimate, and what it would be on other draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and its bounds."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """An estimate and what it would be on other draws of the images.

    Attributes:
        resampled: ``[resamples]`` float64. Those of two sets of equally many images are of the same draws, so that
            their difference leaves out what labels, orders and noise do to both.
    """

    estimate: float
    resampled: Tensor

    def __sub__(self, other: Spread) -> Spread:
        return Spread(self.estimate - other.estimate, self.resampled - other.resampled)

    @property
    def interval(self) -> Interval:
        """95%: the estimate plus the quantiles of the resamples from their mean."""
        tails = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=self.resampled.dtype)
        low, high = (self.estimate + (self.resampled - self.resampled.mean()).quantile(tails)).tolist()
        return Interval(self.estimate, low, high)

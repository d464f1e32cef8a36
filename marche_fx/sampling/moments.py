"""Mean and covariance of features, of parts and of all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Of M images' features of D numbers, in float64 on the host.

    Attributes:
        count: M. mean: ``[D]``. scatter: ``[D, D]``, the sum of products of deviations from the mean.
    """

    count: int
    mean: Tensor
    scatter: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Those of ``features`` ``[M, D]``."""
        values = features.cpu().double()
        mean = values.mean(0)
        deviations = values - mean
        return cls(len(values), mean, deviations.T @ deviations)

    @classmethod
    def merged(cls, parts: Iterable[Moments]) -> Moments:
        """Those of all parts together; in one order of parts the same bits."""
        return reduce(cls.with_others, parts)

    def with_others(self, other: Moments) -> Moments:
        """Nothing is lost by it but rounding (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        shift = other.mean - self.mean
        mean = self.mean + shift * (other.count / count)
        between = torch.outer(shift, shift) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """``[D, D]``, of a sample: over M - 1."""
        return self.scatter / (self.count - 1)

    def frechet_distance(self, mean: Tensor, covariance: Tensor) -> float:
        """From a Gaussian ``[D]``, ``[D, D]``; biased upwards for small M: compare equal M."""
        # Loads the models that come along.
        from ..models.judge import frechet_distance

        return frechet_distance(self.mean, self.covariance, mean.cpu().double(), covariance.cpu().double())

"""A Gaussian whose exact denoiser is known, and what noising makes of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Gaussian:
    """Starts with this mean and deviation; ``signal`` is the share of signal in the variance of a unit start."""

    mean: float
    deviation: float

    def variance_at(self, signal: float) -> float:
        return signal * self.deviation**2 + 1 - signal

    def start(self, x: Tensor, signal: float) -> Tensor:
        """The expected start given a noisy value."""
        gain = math.sqrt(signal) * self.deviation**2 / self.variance_at(signal)
        return self.mean + gain * (x - math.sqrt(signal) * self.mean)

    def noise(self, x: Tensor, signal: float) -> Tensor:
        """The expected noise given a noisy value."""
        return (x - math.sqrt(signal) * self.start(x, signal)) / math.sqrt(1 - signal)

    def flowed(self, x: Tensor, before: float, after: float) -> Tensor:
        """Where the probability flow takes a value: as many deviations from the mean as it was."""
        ratio = math.sqrt(self.variance_at(after) / self.variance_at(before))
        return math.sqrt(after) * self.mean + ratio * (x - math.sqrt(before) * self.mean)

    def variance_before(self, now: float, before: float) -> float:
        """Of the less noisy value given the noisy one."""
        variance = self.variance_at(before)
        return variance - now / before * variance**2 / self.variance_at(now)

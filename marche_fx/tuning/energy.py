"""How far two ways of drawing tokens are from one another, in distribution."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Distance:
    """Of K draws of each of R tokens from exact ones, with standard errors over tokens.

    Attributes:
        energy: the energy distance over the spread of exact draws; 0 where the distributions are equal, and unbiased,
            so it may be negative. spread: the mean distance of two draws over that of exact ones.
        shift: the distance of the means over the exact deviation.
    """

    energy: float
    energy_error: float
    spread: float
    spread_error: float
    shift: float


def distance_between(own: Tensor, exact: Tensor) -> Distance:
    """Of draws ``[K, R, C]`` from exact ones of the same tokens."""
    x, y = own.transpose(0, 1).double(), exact.transpose(0, 1).double()
    # Draws of one number may share their noise, so only those of different numbers are independent.
    across, spread, exact_spread = (between_numbers(*both) for both in ((x, y), (x, x), (y, y)))
    scale = exact_spread.mean()
    energy = (2 * across - spread - exact_spread) / scale
    ratio = spread.mean() / scale
    step = x - y
    shift = (step.mean(1) ** 2).sum(-1) - step.var(1).sum(-1) / x.shape[1]
    return Distance(
        energy=float(energy.mean()),
        energy_error=standard_error(energy),
        spread=float(ratio),
        spread_error=standard_error((spread - ratio * exact_spread) / scale),
        shift=float((shift.mean().clamp(min=0) / y.var(1).sum(-1).mean()).sqrt()),
    )


def between_numbers(x: Tensor, y: Tensor) -> Tensor:
    """The mean distance of draws of different numbers, of ``[R, K, C]`` and the same: ``[R]``."""
    distances, count = torch.cdist(x, y), x.shape[1]
    return (distances.sum((1, 2)) - distances.diagonal(dim1=1, dim2=2).sum(-1)) / (count * (count - 1))


def standard_error(values: Tensor) -> float:
    """Of a mean over tokens."""
    return float(values.std() / len(values) ** 0.5)

"""eMIGM's sampling of MAR's head (You et al. 2025, arXiv 2503.07197, and its code): DPM-Solver++ of order 3.

Its solver takes steps of up to three evaluations (Lu et al. 2022, arXiv 2211.01095), even in half the logarithm of
signal over noise, between the last timestep that has enough signal and the first. Guidance holds in a part of the
decoding alone: elsewhere neither the transformer nor the head computes the unconditional half.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..denoising.solvers import half_log_ratio
from ..models.diffusion import Denoiser, GaussianDiffusion
from .sampler import Sampler, SamplerAt

LEAST = -5.1
"""Half the logarithm of signal over noise, below which no timestep is used."""


@dataclass(frozen=True)
class Published:
    """The settings of eMIGM-B for a number of decoding steps.

    Attributes:
        evaluations: of the network for each token. low, high: guidance is computed in the decoding steps at whose end
            a share ``low < share <= high`` of the steps is left.
    """

    evaluations: int
    low: float
    high: float


def settings_for(of: int) -> Published:
    """Those published for 16 decoding steps, or for 128 where there are more than 16."""
    return Published(8, 0.1, 0.3) if of <= 16 else Published(14, 0.05, 0.4)


def is_guided(step: int, of: int) -> bool:
    """Whether decoding step ``step`` of ``of`` is guided."""
    own = settings_for(of)
    return own.low < 1 - (step + 1) / of <= own.high


def orders_of(evaluations: int) -> list[int]:
    """Evaluations in each step of the solver: threes, and what is left at the end."""
    threes, left = divmod(evaluations, 3)
    return [*[3] * (threes - 1), 2, 1] if left == 0 else [*[3] * threes, left]


class ThirdOrderSolver:
    """DPM-Solver++, single steps of order 3, in place of a sampling diffusion; adds no noise.

    Args:
        signal: ``[T]``, share of signal in the variance at each timestep.
        limit: of a token's values, where there is one.
    """

    def __init__(self, signal: Tensor, evaluations: int, limit: float | None = None) -> None:
        ratios = [half_log_ratio(own) for own in signal.tolist()]
        self.kept = [own for own in ratios if own >= LEAST]
        self.scale = len(ratios) / len(self.kept)
        self.orders = orders_of(evaluations)
        self.limit = limit

    def __len__(self) -> int:
        """One draw: that of the start."""
        return 1

    def sample(self, denoiser: Denoiser, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """From ``noise [1, R, C]`` to ``[R, C]``; there is no noise on the way that a temperature could scale."""

        def start(x: Tensor, ratio: float) -> Tensor:
            t = torch.full((len(x),), self.timestep(ratio), device=x.device)
            predicted, _ = denoiser(x, t).chunk(2, -1)
            found = (x - deviation(ratio) * predicted) / level(ratio)
            return found if self.limit is None else found.clamp(-self.limit, self.limit)

        current, first, last = noise[0], self.kept[-1], self.kept[0]
        length = (last - first) / len(self.orders)
        for number, order in enumerate(self.orders):
            current = STEPS[order](start, current, first + number * length, length)
        return current

    def timestep(self, ratio: float) -> float:
        """Where between two timesteps a ratio lies, linear in the logarithm of the signal's level.

        As in eMIGM's code, timesteps are stretched by those that are left out.
        """
        above = min(max(bisect_left(self.kept, -ratio, key=lambda own: -own), 1), len(self.kept) - 1)
        left, right, at = (math.log(level(own)) for own in (self.kept[above - 1], self.kept[above], ratio))
        return (above - 1 + (at - left) / (right - left)) * self.scale


Start = Callable[[Tensor, float], Tensor]
"""``(x [R, C], ratio) -> [R, C]``: the start as it is predicted from a value."""


def level(ratio: float) -> float:
    """Of the signal in a value: the root of its share in the variance."""
    return 1 / math.sqrt(1 + math.exp(-2 * ratio))


def deviation(ratio: float) -> float:
    """Of the noise in a value."""
    return 1 / math.sqrt(1 + math.exp(2 * ratio))


def first_order(start: Start, x: Tensor, ratio: float, length: float) -> Tensor:
    """From ``x [R, C]`` at a ratio to the value where it is by ``length`` higher, with one evaluation."""
    return moved(x, start(x, ratio), ratio, length)


def second_order(start: Start, x: Tensor, ratio: float, length: float) -> Tensor:
    """The same with two evaluations."""
    half = moved(x, start(x, ratio), ratio, length / 2)
    return moved(x, start(half, ratio + length / 2), ratio, length)


def third_order(start: Start, x: Tensor, ratio: float, length: float) -> Tensor:
    """The same with three evaluations, at thirds."""
    begin = start(x, ratio)
    third = start(moved(x, begin, ratio, length / 3), ratio + length / 3)
    two, end = ratio + 2 * length / 3, ratio + length
    bent = math.expm1(-2 * length / 3) / (2 * length / 3) + 1
    value = moved(x, begin, ratio, 2 * length / 3) + 2 * level(two) * bent * (third - begin)
    last = start(value, two)
    bent = math.expm1(-length) / length + 1
    return moved(x, begin, ratio, length) + 1.5 * level(end) * bent * (last - begin)


STEPS = {1: first_order, 2: second_order, 3: third_order}


def moved(x: Tensor, start: Tensor, ratio: float, length: float) -> Tensor:
    """``x [R, C]`` at a ratio, on the way to ``start [R, C]`` where the ratio is by ``length`` higher."""
    after = ratio + length
    return deviation(after) / deviation(ratio) * x - level(after) * math.expm1(-length) * start


def emigm(own: GaussianDiffusion) -> SamplerAt:
    """eMIGM's sampler in place of ``own``."""
    signal = torch.cumprod(1 - own.schedule, 0)

    def at(step: int, of: int) -> Sampler:
        return ThirdOrderSolver(signal, settings_for(of).evaluations, own.limit)

    return at

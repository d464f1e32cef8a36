"""What a head that reuses must compute, slowly: on the denoiser itself, call by call, without a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .denoisers import Denoiser


@dataclass
class Oracle:
    """One denoising of ``net``.

    Args:
        computed: numbers of calls at which slow values are computed; between them the polynomial through the nearest
            ``width`` of them, one for those of the last. guidance: both halves at so many calls, all when omitted.
    """

    net: Denoiser
    times: Sequence[int]
    computed: Sequence[int]
    width: int
    guidance: int = 1

    def slow_values(self, number: int, c: Tensor) -> list[Tensor]:
        known = {own: self.at(self.times[own], c) for own in self.computed}
        if number in known:
            return known[number]
        if self.width == 1:
            return known[max(own for own in self.computed if own < number)]
        through = self.window(number)
        # The polynomial by its coefficients: the powers' weights, then their value at this time.
        powers = np.vander([self.times[own] / 1000 for own in through])
        weights = np.linalg.solve(powers.T, np.vander([self.times[number] / 1000], len(through))[0])
        layers = zip(*(known[own] for own in through))
        return [sum(float(w) * own for w, own in zip(weights, layer)) for layer in layers]

    def window(self, number: int) -> list[int]:
        """The computed calls in a row, as many before as after where there are, that the polynomial goes through."""
        width = min(self.width, len(self.computed))
        rows = [list(self.computed[first : first + width]) for first in range(len(self.computed) - width + 1)]
        sides = [sum(own < number for own in row) - sum(own > number for own in row) for row in rows]
        between = [place for place, row in enumerate(rows) if row[0] < number < row[-1]]
        return rows[min(between, key=lambda place: abs(sides[place]))]

    def at(self, time: int, c: Tensor) -> list[Tensor]:
        return self.net.slow_values(torch.full((len(c),), time), c)

    def plain(self, x: Tensor, c: Tensor) -> list[Tensor]:
        """The results of `forward`."""
        found = []
        for number in range(len(self.times)):
            found.append(self.net.rest(x, c, self.slow_values(number, c)))
            x = 0.9 * x + 0.1 * found[-1]
        return found

    def guided(self, x: Tensor, c: Tensor, scale: float) -> list[Tensor]:
        """The results of `forward_with_cfg`."""
        half, found = len(x) // 2, []
        gap = torch.zeros(())
        for number in range(len(self.times)):
            slow, noisy = self.slow_values(number, c), x[:half]
            first = self.net.rest(noisy, c[:half], [own[:half] for own in slow])
            if number % self.guidance == 0:
                gap = first - self.net.rest(noisy, c[half:], [own[half:] for own in slow])
            guided = first - gap + scale * gap
            found.append(torch.cat([guided, guided]))
            x = 0.9 * x + 0.1 * found[-1]
        return found

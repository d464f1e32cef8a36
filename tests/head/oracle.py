"""What a head that reuses must compute, slowly: on the denoiser itself, call by call, without a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .denoisers import Denoiser, Held


@dataclass
class HeldBranches(Held):
    """Values of branches by number, those of ``whole`` with their gates, which are computed while ``is_open``."""

    whole: Sequence[int]
    is_open: bool = True
    values: dict[tuple[str, int], Tensor] = field(default_factory=dict)

    def branch(self, number: int, compute: Callable[..., Tensor], *args: Any) -> Tensor:
        return self.value(("branch", number), compute, *args) if number in self.whole else compute(*args)

    def product(self, number: int, compute: Callable[..., Tensor], *args: Any) -> Tensor:
        return compute(*args) if number in self.whole else self.value(("product", number), compute, *args)

    def value(self, key: tuple[str, int], compute: Callable[..., Tensor], *args: Any) -> Tensor:
        if self.is_open:
            self.values[key] = compute(*args)
        return self.values[key]


@dataclass
class Oracle:
    """One denoising of ``net``.

    Args:
        computed: numbers of calls at which slow values are computed; between them the polynomial through the nearest
            ``width`` of them, one for those of the last. guidance: both halves at every so many calls. branches: the
            branches of layers at every so many calls, held in between: those of ``whole`` with their gates.
        is_counted_down: whether calls are numbered from the last, which is 0; the first computes all in any case.
    """

    net: Denoiser
    times: Sequence[int]
    computed: Sequence[int]
    width: int
    guidance: int = 1
    branches: int = 1
    whole: Sequence[int] = ()
    is_counted_down: bool = False

    def is_due(self, number: int, every: int) -> bool:
        """Whether a call computes what every so many do."""
        left = len(self.times) - 1 - number
        return number == 0 or (left if self.is_counted_down else number) % every == 0

    def letter(self, number: int, guided: bool) -> str:
        """What a call computes, as a record tells it."""
        is_full = not guided or self.is_due(number, self.guidance)
        has_branches = self.is_due(number, self.branches) or (guided and self.guidance > 1 and is_full)
        return ("F" if is_full else "c") if has_branches else ("H" if is_full else "h")

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
        found: list[Tensor] = []
        held = HeldBranches(self.whole)
        for number in range(len(self.times)):
            held.is_open = self.letter(number, False) == "F"
            found.append(self.net.rest(x, c, self.slow_values(number, c), held))
            x = 0.9 * x + 0.1 * found[-1]
        return found

    def guided(self, x: Tensor, c: Tensor, scale: float) -> list[Tensor]:
        """The results of `forward_with_cfg`."""
        half, found = len(x) // 2, []
        gap = torch.zeros(())
        halves = HeldBranches(self.whole), HeldBranches(self.whole)
        for number in range(len(self.times)):
            slow, noisy, letter = self.slow_values(number, c), x[:half], self.letter(number, True)
            for own in halves:
                own.is_open = letter in "Fc"
            first = self.net.rest(noisy, c[:half], [own[:half] for own in slow], halves[0])
            if letter in "FH":
                gap = first - self.net.rest(noisy, c[half:], [own[half:] for own in slow], halves[1])
            guided = first - gap + scale * gap
            found.append(torch.cat([guided, guided]))
            x = 0.9 * x + 0.1 * found[-1]
        return found

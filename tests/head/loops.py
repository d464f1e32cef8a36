"""Loops that call a denoiser as solvers do: several times in a denoising step, or for each half of guidance apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

FIRST, SECOND, SAME = "one call a step", "second order, at both ends", "second order, twice at one timestep"
SOLVERS = (FIRST, SECOND, SAME)


@dataclass(frozen=True)
class Loop:
    """From noise to data in ``steps`` steps.

    Attributes:
        solver: one of `SOLVERS`. is_apart: whether each half of guidance is a call of its own, one after the other.
    """

    solver: str
    steps: int
    is_apart: bool

    @property
    def times(self) -> list[int]:
        return [990 - 90 * number for number in range(self.steps + 1)]

    @property
    def calls(self) -> int:
        """In a denoising, under one condition."""
        return self.steps * (1 if self.solver == FIRST else 2)

    def run(self, denoiser: Callable[..., Tensor], x: Tensor, c: Tensor) -> list[Tensor]:
        """What each call gave."""
        found: list[Tensor] = []

        def evaluate(noisy: Tensor, time: int) -> Tensor:
            t = torch.full((len(noisy),), time)
            halves = [denoiser(noisy, t, own) for own in ((c, torch.zeros_like(c)) if self.is_apart else (c,))]
            found.extend(halves)
            return 2 * halves[0] - halves[-1]

        for time, after in self.pairs():
            first = evaluate(x, time)
            move = first
            if self.solver != FIRST:
                move = (first + evaluate(0.9 * x + 0.1 * first, after if self.solver == SECOND else time)) / 2
            x = 0.9 * x + 0.1 * move
        return found

    def pairs(self) -> Sequence[tuple[int, int]]:
        return list(zip(self.times, self.times[1:]))

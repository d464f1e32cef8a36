"""A head's diffusion at the timesteps that a `Denoising` keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from torch import Tensor

from ..errors import ArgumentError
from .settings import Denoising
from .solvers import SOLVERS
from .spacing import kept_timesteps, last_with_signal

Diffusion = TypeVar("Diffusion")

Progress = Callable[[int | None], tuple[int, int]]
"""The decoding step that runs, counted from 0, and of how many; given a number where the user said how many."""


Announce = Callable[[Sequence[int]], None]
"""Told the timesteps of a denoising, in the order in which it visits them, before its first call of the denoiser."""


def ignore(timesteps: Sequence[int]) -> None:
    """Nobody needs to know."""


@dataclass(frozen=True)
class Kept(Generic[Diffusion]):
    """A diffusion and the timesteps that it visits, ascending."""

    diffusion: Diffusion
    timesteps: tuple[int, ...]


@dataclass(frozen=True)
class Schedule(Generic[Diffusion]):
    """The diffusions of a head, by number of denoising steps.

    Attributes:
        signal: ``[T]``, of the whole schedule. own: the model's own sampling diffusion.
        respaced: makes a diffusion that visits these timesteps. announce: told them when a denoising begins.

    Raises:
        ArgumentError: the schedule has not so many timesteps.
    """

    denoising: Denoising
    signal: Tensor
    own: Kept[Diffusion]
    respaced: Callable[[tuple[int, ...]], Diffusion]
    progress: Progress
    announce: Announce = ignore
    known: dict[int, Kept[Diffusion]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for count in self.denoising.counts or (len(self.own.timesteps),):
            self.timesteps(count)

    @property
    def length(self) -> int:
        """Timesteps of the whole schedule."""
        return len(self.signal)

    @property
    def most_steps(self) -> int:
        return max(self.denoising.counts, default=len(self.own.timesteps))

    @property
    def solver_has_noise(self) -> bool:
        return self.denoising.solver not in SOLVERS

    def timesteps(self, count: int) -> tuple[int, ...]:
        """``count`` timesteps: the model's own where nothing asks for others, or for others that differ by rounding."""
        asked, own = self.denoising, self.own.timesteps
        found = tuple(kept_timesteps(self.signal, count, asked.spacing, self.last))
        if asked.spacing != "even" or len(found) != len(own):
            return found
        is_unasked = not asked.counts and self.last == self.length - 1
        return own if is_unasked or all(abs(a - b) <= 1 for a, b in zip(found, own)) else found

    @property
    def last(self) -> int:
        if self.denoising.clip is not None:
            return self.denoising.clip
        return self.length - 1 if self.solver_has_noise else last_with_signal(self.signal)

    def of_this_call(self, temperature: float) -> Kept[Diffusion]:
        """The diffusion that the call of the head is to use.

        Raises:
            ArgumentError: the solver has no noise for ``temperature`` to scale, or it is not known how far the decoding
                is.
        """
        asked = self.denoising
        if temperature != 1.0 and not self.solver_has_noise:
            raise ArgumentError(
                f"the solver {asked.solver!r} adds no noise, so there is none that temperature={temperature:g} could "
                'scale. Use temperature=1, or the solver "ancestral"'
            )
        step, of = (0, 1) if asked.anneal is None else self.progress(asked.decoding_steps)
        kept = self.in_steps(asked.steps_at(step, of, len(self.own.timesteps)))
        self.announce(kept.timesteps[::-1])
        return kept

    def in_steps(self, count: int) -> Kept[Diffusion]:
        if count not in self.known:
            timesteps = self.timesteps(count)
            is_own = timesteps == self.own.timesteps
            self.known[count] = self.own if is_own else Kept(self.respaced(timesteps), timesteps)
        return self.known[count]

    def signal_at(self, timesteps: Sequence[int]) -> list[float]:
        return [float(self.signal[own]) for own in timesteps]

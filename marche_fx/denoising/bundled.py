"""In place of the sampling diffusion of the bundled MAR: its `GaussianDiffusion`, and any that has its methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from .schedule import Announce, Kept, Progress, Schedule, ignore
from .settings import Denoising
from .solvers import SOLVERS
from .spacing import chosen_draws

Denoiser = Callable[[Tensor, Tensor], Tensor]


@runtime_checkable
class Respaceable(Protocol):
    """What of a diffusion is used."""

    timesteps: Tensor
    signal: Tensor

    def respaced(self, kept: Tensor) -> Respaceable:
        """The same, at timesteps ``kept [S]`` of the whole schedule."""

    def predict_start(self, denoiser: Denoiser, current: Tensor, index: int) -> Tensor:
        """``[R, C]`` from ``current [R, C]`` at kept timestep ``index``."""

    def denoise(self, denoiser: Denoiser, current: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the value at kept timestep ``index - 1``, both ``[R, C]``."""


class BundledSampler:
    """Denoises as a `Denoising` says, with the methods that the head calls of its own diffusion.

    Args:
        whole: the diffusion that the head is trained with. own: the one that it samples with.
    """

    def __init__(
        self,
        denoising: Denoising,
        whole: Respaceable,
        own: Respaceable,
        progress: Progress,
        announce: Announce = ignore,
    ) -> None:
        def respaced(timesteps: tuple[int, ...]) -> Respaceable:
            return own.respaced(torch.tensor(timesteps))

        kept = Kept(own, tuple(own.timesteps.tolist()))
        self.schedule = Schedule(denoising, whole.signal, kept, respaced, progress, announce)

    def __len__(self) -> int:
        """How many draws of each token suffice."""
        return self.schedule.most_steps if self.schedule.solver_has_noise else 1

    def sample(self, denoiser: Denoiser, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Denoise from ``noise[0]``: ``[R, C]``; further draws are those of the nearest of evenly spaced timesteps.

        Args:
            noise: ``[S, R, C]`` standard normal, no fewer draws than denoising steps; a solver that adds no noise needs
                one.
        """
        kept = self.schedule.of_this_call(temperature)
        process, timesteps, asked = kept.diffusion, kept.timesteps, self.schedule.denoising

        def denoiser_at(index: int) -> Denoiser:
            is_guided = asked.is_guided_at(timesteps[index], self.schedule.length)
            return denoiser if is_guided else without_guidance(denoiser)

        current = noise[0]
        if asked.solver in SOLVERS:
            return SOLVERS[asked.solver](
                lambda x, index: process.predict_start(denoiser_at(index), x, index),
                self.schedule.signal_at(timesteps),
                current,
            )
        draws = chosen_draws(timesteps, len(noise), self.schedule.length)
        for index, draw in zip(reversed(range(len(timesteps))), [*draws[1:], None], strict=True):
            mean, deviation = process.denoise(denoiser_at(index), current, index)
            current = mean if draw is None else mean + deviation * noise[draw] * temperature
        return current


def without_guidance(denoiser: Denoiser) -> Denoiser:
    """The conditional half for both halves; a denoiser that has no ``unguided`` method has no guidance."""
    unguided: Any = getattr(denoiser, "unguided", None)
    if unguided is None:
        return denoiser

    def conditional(x: Tensor, t: Tensor) -> Tensor:
        half = len(x) // 2
        output: Tensor = unguided(x[:half], t[:half])
        return torch.cat([output, output])

    return conditional

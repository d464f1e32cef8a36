"""A rival's samplers in a whole generation, where each decoding step has its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import Tensor

from ..errors import ArgumentError
from ..models import MAR
from ..models.diffusion import Denoiser
from .sampler import Sampler, SamplerAt, with_sampler

STEPS: ContextVar[Iterator[int] | None] = ContextVar("decoding steps to come", default=None)
"""Of the generation that runs. Not an attribute of a sampler: a model is captured anew where its attributes change."""


class SteppedSampler:
    """Draws in each of ``of`` decoding steps by the sampler of that step, inside of `counted_steps`."""

    def __init__(self, sampler_at: SamplerAt, of: int) -> None:
        self.samplers: tuple[Sampler, ...] = tuple(sampler_at(step, of) for step in range(of))

    def __len__(self) -> int:
        """The draws of a token in the step that takes most."""
        return max(map(len, self.samplers))

    def sample(self, denoiser: Denoiser, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Denoise from ``noise [S, R, C]`` to ``[R, C]``; a sampler of fewer draws leaves the last ones out."""
        steps = STEPS.get()
        step = len(self.samplers) if steps is None else next(steps)
        if step >= len(self.samplers):
            raise ArgumentError(
                f"a head with a sampler for each of {len(self.samplers)} decoding steps was called outside of them: "
                "decode in as many steps, inside `with counted_steps()`"
            )
        sampler = self.samplers[step]
        if len(noise) < len(sampler):
            raise ArgumentError(
                f"the rival's head draws each token {len(sampler)} times, and there is noise for the model's own "
                f"{len(noise)} denoising steps: load the model with num_sampling_steps={len(sampler)} or more"
            )
        return sampler.sample(denoiser, noise, temperature)


@contextmanager
def counted_steps() -> Iterator[None]:
    """Inside, each call of a head with a `SteppedSampler` is the next decoding step of one generation."""
    token = STEPS.set(itertools.count())
    try:
        yield
    finally:
        STEPS.reset(token)


def draw_by(model: MAR, sampler_at: SamplerAt, of: int) -> None:
    """Have ``model``, a copy, draw by the samplers of ``of`` decoding steps; its original is left as it is."""
    # Found before the child of this name, which the copy shares with its original.
    vars(model)["diffloss"] = with_sampler(model.diffloss, SteppedSampler(sampler_at, of))

"""What draws tokens in place of a head's own sampling diffusion."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from ..models.diffusion import Denoiser, GaussianDiffusion
from ..models.head import DiffLoss


class Sampler(Protocol):
    """What a head calls of its sampling diffusion."""

    def __len__(self) -> int:
        """Draws of each token."""

    def sample(self, denoiser: Denoiser, noise: Tensor, temperature: float = 1.0) -> Tensor:
        """Denoise from ``noise [S, R, C]`` to ``[R, C]``."""


SamplerAt = Callable[[int, int], Sampler]
"""``(step, of)``: of a decoding step, counted from 0, of so many."""

MakeSampler = Callable[[GaussianDiffusion], SamplerAt]
"""Made of the diffusion that a head samples with."""


def with_sampler(head: DiffLoss, sampler: Sampler) -> DiffLoss:
    """A shallow copy of ``head`` that draws by ``sampler``."""
    replaced = copy.copy(head)
    vars(replaced)["gen_diffusion"] = sampler
    return replaced

"""DiSA: fewer denoising steps for later tokens (Zhao et al. 2025, arXiv 2505.20297).

The numbers are those of its code. ``Denoising("disa")`` rounds where it truncates, and spaces the timesteps up to the
clip evenly where it cuts off evenly spaced ones, of which those behind the clip become one.
"""

from __future__ import annotations

import torch

from ..denoising.spacing import evenly_spaced
from ..models.diffusion import GaussianDiffusion
from .sampler import Sampler, SamplerAt

FIRST, LAST = 50, 5
"""Denoising steps in the first decoding step and in the last."""

CLIP = 950
"""The first timestep."""


def timesteps_of(step: int, of: int, schedule: int) -> list[int]:
    """The timesteps, ascending, of decoding step ``step`` of ``of``, from a schedule of so many."""
    left = (of - 1 - step) / max(of - 1, 1)
    count = LAST + int(left * (FIRST - LAST))
    return sorted({min(own, CLIP) for own in evenly_spaced(schedule, count).tolist()})


def disa(own: GaussianDiffusion) -> SamplerAt:
    """DiSA's sampler in place of ``own``."""

    def at(step: int, of: int) -> Sampler:
        return own.respaced(torch.tensor(timesteps_of(step, of, len(own.schedule))))

    return at

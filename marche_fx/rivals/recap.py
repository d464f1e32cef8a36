"""ReCAP's denoising: fewer steps where the transformer's step is a local one (arXiv 2505.19089, and its code)."""

from __future__ import annotations

from ..denoising.spacing import evenly_spaced
from ..models.diffusion import GaussianDiffusion
from ..refresh import InterleavedRefresh
from .sampler import Sampler, SamplerAt

SHARE = 0.4
"""Of the denoising steps, in a local step: 40 of 100."""


def schedule_of(of: int) -> InterleavedRefresh:
    """The first half of ``of`` decoding steps in full, then one in full and one local in turn."""
    return InterleavedRefresh(2, warmup=of // 2 + 1)


def is_local(step: int, of: int) -> bool:
    """Whether decoding step ``step`` of ``of`` reuses what the one before it computed."""
    after = step - of // 2
    return after > 0 and after % 2 == 1


def recap(own: GaussianDiffusion) -> SamplerAt:
    """ReCAP's sampler in place of ``own``."""
    fewer = own.respaced(evenly_spaced(len(own.schedule), int(SHARE * len(own))))

    def at(step: int, of: int) -> Sampler:
        return fewer if is_local(step, of) else own

    return at

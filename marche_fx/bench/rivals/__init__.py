"""How others have MAR's head draw tokens, written by hand from their papers and code.

sampler    what takes the place of a head's sampling diffusion
disa, recap, lazymar, emigm   one file each
"""

from .disa import disa
from .emigm import emigm
from .lazymar import lazymar
from .recap import recap
from .sampler import MakeSampler, Sampler, SamplerAt, with_sampler

RIVALS: dict[str, MakeSampler] = {"disa": disa, "recap": recap, "lazymar": lazymar, "emigm": emigm}
"""By the word of the variant."""

__all__ = ["RIVALS", "MakeSampler", "Sampler", "SamplerAt", "with_sampler"]

"""How others have MAR decode, written by hand from their papers and code: what is refreshed, and how tokens are drawn.

sampler    what takes the place of a head's sampling diffusion
stepped    the samplers of all decoding steps in a whole generation
disa, recap, lazymar, emigm   one file each
"""

from collections.abc import Callable, Mapping

from ..refresh import RefreshPolicy
from .disa import disa
from .emigm import emigm
from .lazymar import lazymar, policies
from .recap import recap, schedule_of
from .sampler import MakeSampler, Sampler, SamplerAt, with_sampler

RIVALS: dict[str, MakeSampler] = {"disa": disa, "recap": recap, "lazymar": lazymar, "emigm": emigm}
"""What each draws tokens by, by its word."""

Policies = RefreshPolicy | Mapping[str, RefreshPolicy]

REFRESH: dict[str, Callable[[int], Policies]] = {"recap": schedule_of, "lazymar": lambda of: policies()}
"""What those that cache refresh, in a generation of so many decoding steps; the others compute all rows."""

__all__ = ["REFRESH", "RIVALS", "MakeSampler", "Policies", "Sampler", "SamplerAt", "with_sampler"]

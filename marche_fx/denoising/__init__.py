"""How a diffusion head denoises: in how many steps, at which timesteps, by which solver, guided where.

settings   what is asked for, `Denoising`; `saving` makes words and JSON of it
spacing    the timesteps that are kept
solvers    from noise to data without noise on the way
schedule   a head's diffusion at these timesteps, in as many steps as the decoding step is to take
bundled, official   in place of the sampling diffusion of the bundled MAR and of the official one
replace    a copy of a head with that
"""

from .saving import denoising_from_dict, denoising_to_dict, load_denoising, parse_denoising, save_denoising
from .settings import Denoising

__all__ = [
    "Denoising",
    "denoising_from_dict",
    "denoising_to_dict",
    "load_denoising",
    "parse_denoising",
    "save_denoising",
]

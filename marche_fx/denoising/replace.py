"""A copy of a head whose sampling diffusion is another."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from ..errors import UnsupportedModelError
from . import official
from .bundled import BundledSampler, Respaceable
from .official import OfficialSampler
from .schedule import Announce, Progress, ignore
from .settings import Denoising

SAMPLING, TRAINING = "gen_diffusion", "train_diffusion"
"""Attributes of a head: the diffusion that it samples with, and the whole schedule that it is trained with."""


def with_denoising(head: nn.Module, denoising: Denoising, progress: Progress, announce: Announce = ignore) -> nn.Module:
    """A shallow copy of ``head`` that denoises as ``denoising`` says; ``head`` is left as it is.

    Args:
        announce: told the timesteps of each denoising when it begins.

    Raises:
        UnsupportedModelError: its diffusion is none that is known.
        ArgumentError: its schedule has not so many timesteps.
    """
    own, whole = getattr(head, SAMPLING, None), getattr(head, TRAINING, None)
    sampler: Any
    if isinstance(own, Respaceable) and isinstance(whole, Respaceable):
        sampler = BundledSampler(denoising, whole, own, progress, announce)
    elif official.is_known(own) and official.is_known(whole) and is_whole(whole):
        sampler = OfficialSampler(denoising, whole, own, progress, announce)
    else:
        raise UnsupportedModelError(
            f"the diffusion of {type(head).__name__} is not known: denoising needs a head with {SAMPLING} and "
            f"{TRAINING}, the latter of all timesteps, of marche_fx.models.diffusion.GaussianDiffusion or of "
            f"SpacedDiffusion as in MAR's repository; found {kind_of(own)} and {kind_of(whole)}"
        )
    replaced = copy.copy(head)
    vars(replaced)[SAMPLING] = sampler
    return replaced


def is_whole(diffusion: Any) -> bool:
    return len(diffusion.timestep_map) == diffusion.original_num_steps


def kind_of(diffusion: object) -> str:
    return "none" if diffusion is None else type(diffusion).__name__

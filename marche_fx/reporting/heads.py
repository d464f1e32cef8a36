"""What `transform` would make of the denoisers of a head, told by a few calls on a copy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from ..api.head import denoiser_paths
from ..api.optimization import optimization_of
from ..api.options import KNOWN_DENOISERS, KNOWN_HEADS, has_known_denoisers
from ..api.transform import transform
from ..checks import check_callable
from ..denoising import Denoising
from ..errors import ArgumentError
from .head_report import HeadReport, head_report

FEW = Denoising(steps=6)
"""Enough calls to tell which argument is what."""

ROWS = 8
"""Of both halves of guidance."""


def explain_heads(
    model: nn.Module, inner: str | Sequence[str] | None, sample: Callable[[Any], Any] | None
) -> tuple[HeadReport, ...]:
    """A report of each denoiser; a model of random tokens is enough for it.

    Raises:
        ArgumentError: ``sample`` is missing, or never calls a denoiser.
    """
    if sample is not None:
        check_callable("sample", sample)
    denoiser_paths(model, inner, default=KNOWN_DENOISERS)
    is_known = inner is None and has_known_denoisers(model)
    if sample is None and not is_known:
        raise ArgumentError(
            f"a few calls tell what a denoiser of {type(model).__name__} is: give sample=lambda model: ..., which has "
            "it denoise a few tokens"
        )
    denoising = FEW if sample is None else None
    optimized = transform(model, inner=inner, reuse="exact", denoising=denoising, compile=False)
    with torch.no_grad():
        (sample or denoise_a_few)(optimized)
    heads = optimization_of(optimized).heads
    if not any(own.programs or len(own.refused) for own in heads.values()):
        raise ArgumentError(
            f"sample called {' and '.join(heads)} less often than tells which argument is what: three times in one "
            "denoising, with four rows or more"
        )
    return tuple(head_report(own) for own in heads.values())


def denoise_a_few(model: Any) -> None:
    """Random tokens of a MAR, without guidance and with it."""
    head = getattr(model, KNOWN_HEADS[0])
    like = next(head.net.parameters())
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(ROWS, head.net.cond_embed.in_features, generator=generator).to(like)
    # The caller's random numbers go on as if nothing had been drawn.
    with torch.random.fork_rng(devices=[like.device] if like.is_cuda else []):
        for scale in (1.0, 2.0):
            head.sample(z, cfg=scale)

"""MaskGIT's loop over the tokens of images, with guidance by labels; it knows nothing of marche_fx."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..parallel_decoding import Denoiser, generate_in_parallel


class LabelledDenoiser(Protocol):
    """A `MaskGIT`, or what is called as one."""

    mask_id: int
    no_label: int
    tokens: int

    def __call__(self, ids: Tensor, labels: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Decoding:
    """How codes are written.

    Attributes:
        guidance: how much further than without a label the logits move in the end; with 0 there is no guidance.
        temperature: of the draws of codes.
        choice_temperature: of the noise on the choice of codes to keep, at first; it falls to nothing.
    """

    steps: int = 32
    guidance: float = 0.0
    temperature: float = 1.0
    choice_temperature: float = 9.0


def generate_codes(
    model: LabelledDenoiser,
    labels: Tensor,
    decoding: Decoding | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Codes ``[B, N]`` of images of the classes ``labels [B]``; see `generate_in_parallel`."""
    decoding = decoding or Decoding()
    return generate_in_parallel(
        guided(model, labels, decoding.guidance),
        labels.new_empty(len(labels), 0),
        model.tokens,
        mask_id=model.mask_id,
        steps=decoding.steps,
        temperature=decoding.temperature,
        choice_temperature=decoding.choice_temperature,
        generator=generator,
    )


def guided(model: LabelledDenoiser, labels: Tensor, guidance: float) -> Denoiser:
    """The model with labels ``[B]``, and with ``guidance`` that grows with the share of codes that are known.

    Source: classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598), growing as in Muse (arXiv 2301.00704). The
    two halves of a batch of twice the size are with and without labels.
    """
    if guidance == 0:
        return lambda ids: model(ids, labels)
    both = torch.cat([labels, torch.full_like(labels, model.no_label)])

    def denoise(ids: Tensor) -> Tensor:
        known = (ids != model.mask_id).float().mean(1)[:, None, None]
        told, untold = model(ids.repeat(2, 1), both).chunk(2)
        return told + guidance * known * (told - untold)

    return denoise

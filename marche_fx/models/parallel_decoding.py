"""MaskGIT's loop (Chang et al. 2022, arXiv 2202.04200): every mask at once, the least certain masked again.

Written from the paper, for any ``model(ids [B, N]) -> logits [B, N, V]``; it knows nothing of marche_fx.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[[Tensor], Tensor]


def add_gumbel_noise(logits: Tensor, temperature: float, generator: torch.Generator | None) -> Tensor:
    """What the largest of is a draw at ``temperature``, in float64: less makes the rare pieces rarer than they are."""
    if temperature == 0:
        return logits
    return logits.double() + temperature * gumbel(logits, generator)


def gumbel(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Gumbel noise of the shape of ``like``, in float64."""
    uniform = torch.rand(like.shape, generator=generator, dtype=torch.float64, device=like.device)
    return -(-uniform.clamp(min=1e-300).log()).log()


@torch.no_grad()
def generate_in_parallel(
    model: Denoiser,
    prompt: Tensor,
    length: int,
    *,
    mask_id: int,
    steps: int = 32,
    temperature: float = 1.0,
    choice_temperature: float = 4.5,
    generator: torch.Generator | None = None,
) -> Tensor:
    """MaskGIT's decoding: ``length`` pieces behind ``prompt [B, P]``, all at once, ``[B, P + length]`` in all.

    In each step a piece is drawn for every mask, and the least likely of the draws become masks again, fewer from step
    to step along a cosine. Gumbel noise on the log-likelihoods, less from step to step, varies the choice.
    """
    ids = torch.cat([prompt, prompt.new_full((len(prompt), length), mask_id)], 1)
    for step in range(steps):
        masked = ids == mask_id
        logits = model(ids)
        drawn = add_gumbel_noise(logits, temperature, generator).argmax(-1)
        ids = torch.where(masked, drawn, ids)
        wanted = math.floor(length * math.cos(math.pi / 2 * (step + 1) / steps))
        left = min(wanted, int(masked[0].sum()) - 1)
        if step == steps - 1 or left < 1:
            break
        share = 1 - (step + 1) / steps
        likelihood = logits.double().log_softmax(-1).gather(-1, drawn[..., None])[..., 0]
        confidence = likelihood + choice_temperature * share * gumbel(likelihood, generator)
        confidence = confidence.masked_fill(~masked, math.inf)
        doubtful = confidence.topk(left, 1, largest=False).indices
        ids = ids.scatter(1, doubtful, mask_id)
    return ids

"""LLaDA's loop (Nie et al. 2025, arXiv 2502.09992), which turns masks into text block after block.

Written from the paper, for any ``model(ids [B, N]) -> logits [B, N, V]``; it knows nothing of marche_fx.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...errors import ArgumentError
from ..parallel_decoding import Denoiser, add_gumbel_noise

REMASKING = ("low_confidence", "random")


@torch.no_grad()
def generate(
    model: Denoiser,
    prompt: Tensor,
    length: int,
    *,
    mask_id: int,
    block_length: int = 32,
    steps_per_block: int = 32,
    temperature: float = 0.0,
    remasking: str = "low_confidence",
    generator: torch.Generator | None = None,
) -> Tensor:
    """LLaDA's semi-autoregressive decoding: ``length`` pieces behind ``prompt [B, P]``, ``[B, P + length]`` in all.

    Blocks of ``block_length`` are filled from left to right. In each of the steps of a block every masked piece is
    predicted, and those of the block that the model is surest of are kept, or random ones.

    Args:
        temperature: of the Gumbel noise on the logits; with 0 the likeliest piece is taken.
        remasking: ``"low_confidence"`` or ``"random"``, which predictions become masks again.
    """
    if remasking not in REMASKING:
        raise ArgumentError(f"remasking must be one of {', '.join(REMASKING)}, got {remasking!r}")
    if length % block_length:
        raise ArgumentError(f"length {length} is no multiple of block_length {block_length}")
    batch, given = prompt.shape
    ids = torch.cat([prompt, prompt.new_full((batch, length), mask_id)], 1)
    for begin in range(given, given + length, block_length):
        end = begin + block_length
        for kept in even_shares(block_length, steps_per_block):
            masked = ids == mask_id
            logits = model(ids)
            predicted = add_gumbel_noise(logits, temperature, generator).argmax(-1)
            if remasking == "low_confidence":
                confidence = logits.double().softmax(-1).gather(-1, predicted[..., None])[..., 0]
            else:
                confidence = torch.rand(ids.shape, generator=generator, dtype=torch.float64, device=ids.device)
            confidence = confidence.masked_fill(~masked, -math.inf)
            confidence[:, end:] = -math.inf
            chosen = torch.zeros_like(masked).scatter(1, confidence.topk(kept, 1).indices, True)
            ids = torch.where(chosen, predicted, ids)
    return ids


def even_shares(total: int, steps: int) -> list[int]:
    """``total`` as a sum of ``steps`` numbers that differ by one at most, the larger ones first."""
    if not 1 <= steps <= total:
        raise ArgumentError(f"{total} pieces cannot be filled in {steps} steps, at least one in each")
    return [total // steps + (step < total % steps) for step in range(steps)]

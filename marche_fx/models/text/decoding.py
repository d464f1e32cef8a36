"""Two loops that turn masks into text: LLaDA's, block after block, and MaskGIT's, everywhere at once.

Both are written from the papers (Nie et al. 2025, arXiv 2502.09992; Chang et al. 2022, arXiv 2202.04200), for any
``model(ids [B, N]) -> logits [B, N, V]``, and know nothing of marche_fx.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...errors import ArgumentError

Denoiser = Callable[[Tensor], Tensor]
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

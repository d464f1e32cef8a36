"""Teacher-forced drift: how far a cached step's vectors are from the exact ones when both see the same tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..api.decoding import decoding
from .mar import MAR, mask_by_order, mask_length


@dataclass(frozen=True)
class DecodingStep:
    """The arguments of one decoding step of `MAR.sample_tokens`, guidance included.

    Attributes:
        tokens: ``[B, N, C]``, zero where not decoded yet. mask: ``[B, N]``, one where masked.
        class_embedding: ``[B, D]``. read: bool ``[B, N]``, the rows of ``z`` that the step reads.
    """

    tokens: Tensor
    mask: Tensor
    class_embedding: Tensor
    read: Tensor


def replay(
    model: MAR, images: Tensor, orders: Tensor, labels: Tensor, num_iter: int, cfg: float
) -> Iterator[DecodingStep]:
    """The steps in which `MAR.sample_tokens` would have made ``images [b, c, H, W]`` in these ``orders [b, N]``."""
    final = model.patchify(images)
    bsz, length = orders.shape
    class_embedding = model.class_emb(labels)
    guided = cfg != 1.0
    if guided:
        class_embedding = torch.cat([class_embedding, model.fake_latent.repeat(bsz, 1)])
    masked = length
    for step in range(num_iter):
        mask = mask_by_order(masked, orders, bsz, length)
        masked = mask_length(step, num_iter, length, masked)
        left = torch.zeros_like(mask) if step == num_iter - 1 else mask_by_order(masked, orders, bsz, length)
        tokens, read = final * (1 - mask)[..., None].to(final.dtype), mask.bool() & ~left.bool()
        if guided:
            tokens, mask, read = tokens.repeat(2, 1, 1), mask.repeat(2, 1), read.repeat(2, 1)
        yield DecodingStep(tokens, mask, class_embedding, read)


@torch.no_grad()
def teacher_forced_drift(
    model: MAR, optimized: MAR, images: Tensor, orders: Tensor, labels: Tensor, num_iter: int, cfg: float
) -> list[float]:
    """For each step, the norm of the difference of the rows of ``z`` that are read, relative to the exact rows' norm.

    ``optimized`` is what `transform` made of ``model``; arguments as in `replay`.
    """
    drifts = []
    with decoding(optimized):
        for step in replay(model, images, orders, labels, num_iter, cfg):
            exact, cached = (read_rows(mar, step) for mar in (model, optimized))
            drifts.append(float(torch.linalg.vector_norm(cached - exact) / torch.linalg.vector_norm(exact)))
    return drifts


def read_rows(mar: MAR, step: DecodingStep) -> Tensor:
    encoded = mar.forward_mae_encoder(step.tokens, step.mask, step.class_embedding)
    return mar.forward_mae_decoder(encoded, step.mask)[step.read.nonzero(as_tuple=True)]

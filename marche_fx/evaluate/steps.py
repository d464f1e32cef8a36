"""Decoding steps without the diffusion head: to count FLOPs, and to capture."""

from __future__ import annotations

import torch
from torch import Tensor

from ..api.decoding import decoding
from ..api.transform import transform
from ..models import MAR
from ..models.drift import read_rows, replay
from ..refresh import FullRefresh
from ..reporting.report import report


def steps_ratios(model: MAR, counts: set[int], base: int) -> dict[int, float]:
    """FLOPs of the exact transformer in these numbers of decoding steps, over those in ``base`` steps."""
    if counts <= {base}:
        return {base: 1.0}
    full = transform(model, refresh=FullRefresh(), compile=False, verify=False)
    # Guidance would double the samples, and all of these alike.
    labels = torch.zeros(2, dtype=torch.long, device=model.mask_token.device)
    flops = {count: exact_flops(model, full, labels, count) for count in counts | {base}}
    return {count: own / flops[base] for count, own in flops.items()}


def exact_flops(model: MAR, full: MAR, labels: Tensor, count: int) -> float:
    decode_nothing(model, full, labels, count, cfg=1.0)
    session = report(full).session
    assert session is not None
    return sum(original for *_, original in session.rows)


@torch.inference_mode()
def decode_nothing(model: MAR, optimized: MAR, labels: Tensor, count: int, cfg: float) -> None:
    """The transformer's part of a decoding in ``count`` steps that draws zeros; the head is most of the time.

    ``optimized`` is what `transform` made of ``model``.
    """
    side = model.patch_size
    images = torch.zeros(len(labels), model.vae_embed_dim, model.seq_h * side, model.seq_w * side)
    orders = torch.arange(model.seq_len, device=labels.device).repeat(len(labels), 1)
    with decoding(optimized):
        for step in replay(model, images.to(model.mask_token), orders, labels, count, cfg):
            read_rows(optimized, step)

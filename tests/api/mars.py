"""Small MARs that generate something, and arguments that fix every random choice."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from marche_fx.models.mar import MAR
from tests.networks import small_mar


def random_mar(depth: int = 2, side: int = 6) -> MAR:
    """A MAR whose head depends on ``z``: the original initialisation ends in zeros."""
    torch.manual_seed(0)
    mar = small_mar(side=side, width=16, buffer=4, depth=depth)
    for name, parameter in mar.diffloss.net.final_layer.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, std=0.3)
    return mar.eval()


def draws(mar: MAR, samples: int, steps: int = 8, cfg: float = 2.0, seed: int = 0) -> dict[str, Any]:
    """Arguments of `sample_tokens` that fix every random choice."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "bsz": samples,
        "num_iter": steps,
        "cfg": cfg,
        "labels": torch.arange(samples) % 3,
        "orders": mar.sample_orders(samples, generator),
        "noise": torch.randn(samples, mar.seq_len, len(mar.diffloss.gen_diffusion), 4, generator=generator),
    }

"""A transformed model that was used: of its session of three steps, two were partial."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

import marche_fx
from marche_fx import SelectiveRefresh
from tests.networks import Transformer

X = torch.randn(2, 30, 16)


@cache
def used() -> nn.Module:
    torch.manual_seed(0)
    optimized = marche_fx.transform(
        Transformer(30, 16, 2).eval(), refresh=SelectiveRefresh(0.0, warmup=0), compile=False
    )
    with torch.no_grad(), marche_fx.decoding(optimized):
        for _ in range(3):
            optimized(X)[:, 2].sum()
    return optimized

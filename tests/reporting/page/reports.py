"""The reports whose pages the tests look at."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.reporting.report import Report
from tests.networks import WithConvolution
from tests.reporting.hostile import hostile

STEPS = 8


@cache
def bounded() -> Report:
    """A session of two streams, called in turn under two conditions; most rows are read, few of them computed."""
    torch.manual_seed(0)
    policy = SelectiveRefresh(0.1, warmup=1, queried=0.2)
    optimized = marche_fx.transform(Conditioned().eval(), refresh=policy, compile=False)
    x, conditions = torch.randn(2, 30, 16), torch.randn(2, 2, 16)
    with torch.no_grad(), marche_fx.decoding(optimized):
        for step in range(STEPS):
            x = x.clone()
            x[0, step] = torch.randn(16)
            for condition in conditions:
                optimized(x, condition)[:, 10:28].sum()
    return marche_fx.report(optimized)


class Conditioned(nn.Module):
    """``[B, N, 16]`` under ``[B, 16]`` to ``[B, N, 16]``, with a convolution that runs on all tokens."""

    def __init__(self) -> None:
        super().__init__()
        own = WithConvolution(30, 16, 2)
        self.first, self.neighbours, self.last = own.first, own.neighbours, own.last

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        x = self.first(x + condition[:, None])
        return self.last(x + self.neighbours(x))


@cache
def hostile_report() -> Report:
    return marche_fx.explain(hostile(), torch.randn(2, 30, 16))

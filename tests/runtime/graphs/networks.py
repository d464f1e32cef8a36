"""Transformed models whose steps are recorded on the processor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import marche_fx
from marche_fx.api.optimization import optimization_of
from marche_fx.runtime.graphs.counts import GraphCounts
from marche_fx.runtime.graphs.store import Graphs
from tests.runtime.graphs.tape import Tapes
from tests.sessions import transformer


def graphed(model: nn.Module, tapes: Tapes | None = None, **options: Any) -> nn.Module:
    """``model`` transformed, with tapes in place of CUDA graphs."""
    optimized = marche_fx.transform(model, **{"compile": False, "cuda_graphs": True, **options})
    recorder = Tapes() if tapes is None else tapes

    def make(device: torch.device) -> Tapes:
        return recorder

    optimization_of(optimized).settings.graphs = Graphs(make)
    return optimized


def store_of(optimized: nn.Module) -> Graphs:
    store = optimization_of(optimized).settings.graphs
    assert store is not None
    return store


def counts_of(optimized: nn.Module) -> list[GraphCounts]:
    """Of each program."""
    steps = optimization_of(optimized).steps.values()
    return [own.graphs.counts for step in steps for own in step.programs if own.graphs is not None]


class Sorted(nn.Module):
    """A transformer behind children that sort their rows by value, which no trace sees through."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([transformer(1)])
        self.mixtures = nn.ModuleList([Halves() for _ in range(10)])

    def forward(self, x: Tensor) -> Tensor:
        for mixture in self.mixtures:
            x = x + mixture(x)
        found: Tensor = self.layers[0](x)
        return found


class Halves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        rows, found = x.flatten(0, 1), torch.zeros_like(x).flatten(0, 1)
        for chosen, factor in ((rows[:, 0] > 0, 0.25), (rows[:, 0] <= 0, -0.5)):
            if chosen.any():
                found[chosen] = rows[chosen] * factor
        return found.view_as(x)

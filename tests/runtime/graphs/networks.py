"""Transformed models whose steps are recorded on the processor."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import marche_fx
from marche_fx.api.optimization import optimization_of
from marche_fx.runtime.graphs.counts import GraphCounts
from marche_fx.runtime.graphs.store import Graphs
from tests.runtime.graphs.tape import Tapes


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

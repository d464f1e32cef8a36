"""Runs what `split` makes by hand: prologue, incremental part, epilogue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from marche_fx.passes.plan import make_plan
from marche_fx.passes.split import Part, split


class Program:
    """A step of ``model`` rewritten for active tokens, with the caches of one session."""

    def __init__(self, model: nn.Module, step: str, args: Sequence[Any]) -> None:
        self.model = model
        self.plan = make_plan(model, step, tuple(args))
        self.split = split(self.plan.dense.graph_module, self.plan.region, self.plan.sites)
        self.reset()

    def reset(self) -> None:
        self.caches = [torch.zeros(spec.shape, dtype=spec.value.meta["val"].dtype) for spec in self.split.caches]

    @property
    def tokens(self) -> dict[str, tuple[int, int]]:
        """What the oracle must be told: where rows start, and their dimensions of samples and tokens."""
        region = self.plan.region
        return {node.name: (region.batch_dim[node], region.active_dim[node]) for node in region.sources}

    def step(self, inputs: Sequence[Tensor], active: Tensor) -> list[Any]:
        """The step's results when the tokens ``active [B, A]`` are recomputed."""
        state = dict(self.model.named_parameters()) | dict(self.model.named_buffers())
        values: dict[fx.Node, Any] = {node: state[path] for node, path in self.plan.dense.weights.items()}
        values |= self.plan.dense.constants
        values |= dict(zip(self.plan.inputs, inputs, strict=True))
        values |= dict(zip(self.split.prologue.outputs, call(self.split.prologue, values), strict=True))
        samples = torch.arange(len(active))[:, None]
        queried = torch.ones_like(active, dtype=torch.bool)
        call(self.split.incremental, values, [samples, active, queried], self.caches)
        values |= {spec.value: cache for spec, cache in zip(self.split.caches, self.caches)}
        # A result may be a cache itself, which the next step overwrites.
        return [value.clone() for value in call(self.split.epilogue, values)]


def call(part: Part, values: dict[fx.Node, Any], before: Iterable[Any] = (), after: Iterable[Any] = ()) -> Any:
    return part.module(*before, *(values[node] for node in part.inputs), *after)

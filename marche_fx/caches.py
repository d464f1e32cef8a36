"""Allocate the caches of a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from . import ops
from .passes.split import Split


class CacheAllocator:
    """Makes the caches of one rewritten step, in the dtype of the rows that will be written into them.

    That is the dtype of the captured values, unless autocast is on: the graph is captured without it and meets it at
    run time.
    """

    def __init__(self, split: Split) -> None:
        self.split = split
        self.autocast_dtypes: dict[torch.dtype, list[torch.dtype]] = {}

    def allocate(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Zeros in the shape of every cache; ``inputs`` are what the incremental graph reads."""
        device = inputs[0].device
        # Not as inference tensors: a session may go on outside of inference mode.
        with torch.inference_mode(False):
            return [
                torch.zeros(spec.shape, dtype=dtype, device=device)
                for spec, dtype in zip(self.split.caches, self.dtypes(inputs), strict=True)
            ]

    def dtypes(self, inputs: Sequence[Tensor]) -> list[torch.dtype]:
        device_type = inputs[0].device.type
        if not torch.is_autocast_enabled(device_type):
            return [spec.value.meta["val"].dtype for spec in self.split.caches]
        to = torch.get_autocast_dtype(device_type)
        if to not in self.autocast_dtypes:
            self.autocast_dtypes[to] = dry_run(self.split, inputs)
        return self.autocast_dtypes[to]


def dry_run(split: Split, inputs: Sequence[Tensor]) -> list[torch.dtype]:
    """Run the incremental graph on shapes alone and see which dtype reaches each cache."""
    with FakeTensorMode() as mode, torch.inference_mode(False), torch.no_grad():
        fakes = [mode.from_tensor(tensor) for tensor in inputs]
        device, samples = fakes[0].device, split.caches[0].shape[split.caches[0].batch_dim]
        leading = [
            torch.zeros(samples, 1, dtype=torch.int64, device=device),
            torch.zeros(samples, 2, dtype=torch.int64, device=device),
            torch.zeros(samples, 2, dtype=torch.bool, device=device),
        ]
        caches = [torch.zeros(spec.shape, device=device) for spec in split.caches]
        recorder = WrittenDtypes(split.incremental.module)
        recorder.run(*leading, *fakes, *caches)
    return [recorder.found[spec.name] for spec in split.caches]


class WrittenDtypes(fx.Interpreter):
    """Runs a graph and notes the dtype of the rows written into each cache."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.found: dict[Any, torch.dtype] = {}

    def run_node(self, node: fx.Node) -> Any:
        if node.target is not ops.update_cache:
            return super().run_node(node)
        cache, rows = node.args[:2]
        assert isinstance(cache, fx.Node)
        assert isinstance(rows, fx.Node)
        dtype = self.env[rows].dtype
        self.found[cache.target] = dtype
        return self.env[cache].to(dtype)

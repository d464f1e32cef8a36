"""Models whose weights are not where a step could read them as they are: refused by name."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from ..errors import ArgumentError, UnsupportedModelError

WRAPPERS = ("DataParallel", "DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule")
"""Classes whose forward moves weights between devices before it computes."""


def refuse_wrappers(model: nn.Module) -> None:
    if isinstance(model, torch.jit.ScriptModule):
        raise ArgumentError("transform takes the Python module that torch.jit compiled, not the ScriptModule")
    for path, module in model.named_modules():
        kinds = {kind.__name__ for kind in type(module).__mro__}
        wrapper = next((name for name in WRAPPERS if name in kinds), None)
        if wrapper is not None:
            raise UnsupportedModelError(
                f"{path or 'the model'} is wrapped in {wrapper}, which moves weights while it runs. Transform the "
                "model inside, on one device: marche_fx.transform(model.module) where the wrapper has it."
            )


def refuse_spread_weights(model: nn.Module) -> None:
    """Raise for weights that several processes hold in parts, and for those that hooks bring for each call.

    Raises:
        UnsupportedModelError: there are such.
    """
    for name, weight in itertools.chain(model.named_parameters(), model.named_buffers()):
        # By name: the module takes long to load, and is where there is such a weight.
        if any(kind.__name__ == "DTensor" for kind in type(weight).__mro__):
            raise UnsupportedModelError(
                f"{name} is a DTensor, of which each process holds a part, as tensor parallelism makes them. Transform "
                "a model that is whole on one device, and give each process a part of the samples"
            )
    for path, module in model.named_modules():
        hook = offloading_hook(module)
        if hook is not None:
            raise UnsupportedModelError(
                f"{path or 'the model'} has the hook {hook}, which moves weights away between calls, and a captured "
                "step reads them without it. Remove it, as by accelerate.hooks.remove_hook_from_module(model, "
                "recurse=True), and keep the model on one device; quantised weights make it smaller"
            )


def offloading_hook(module: nn.Module) -> str | None:
    """The kind of the hook of accelerate or diffusers that brings a module's weights for a call, if it has one."""
    own = getattr(module, "_hf_hook", None)
    registry = getattr(module, "_diffusers_hook", None)
    for hook in (own, *getattr(own, "hooks", ()), *getattr(registry, "hooks", {}).values()):
        kind = type(hook).__name__
        if "Offload" in kind or getattr(hook, "offload", False) is True:
            return kind
    return None

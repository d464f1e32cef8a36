"""Where a captured step finds the model's weights, at every call, and what it was made for of them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..passes.capture.captured import Capture


def owner(model: nn.Module, path: str) -> tuple[dict[str, Any], str]:
    """The table in which a module keeps the parameter or buffer at ``path``, and its name there."""
    parent, _, name = path.rpartition(".")
    module = model.get_submodule(parent)
    return (module._parameters if name in module._parameters else module._buffers), name


def fits_weights(capture: Capture, model: nn.Module) -> bool:
    """Whether the weights of a model are of the kinds that a captured step was made for."""
    for node, path in capture.weights.items():
        table, name = owner(model, path)
        if weight_kind(table[name]) != weight_kind(node.meta["val"]):
            return False
    return True


def weight_kind(weight: Tensor | None) -> Any:
    return None if weight is None else (weight.shape, weight.dtype, weight.device)

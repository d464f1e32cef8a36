"""Where a captured step finds the model's weights, at every call, and what it was made for of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from ..passes.capture.captured import Capture

PART = re.compile(r"(?:(.*)\.)?parametrizations\.(\w+)\.original(\d+)")
"""How a trace calls a tensor that a weight is made of, as quantised ones are: ``parametrizations.weight.original1``."""


@dataclass(frozen=True)
class Weight:
    """Where a parameter or a buffer is found: in which table of its module, and which part of it, if it has parts."""

    table: dict[str, Any]
    name: str
    part: int | None = None

    def now(self) -> Tensor | None:
        """The tensor that is there; None where another kind of weight has no such part."""
        if self.part is None:
            return self.table[self.name]
        parts = list(plain_parts(self.table[self.name]))
        return parts[self.part] if self.part < len(parts) else None


def find_weight(model: nn.Module, path: str) -> Weight:
    """Where the parameter or buffer is that a trace found at ``path``."""
    made_of = PART.fullmatch(path)
    if made_of is not None:
        parent, name, number = made_of.groups()
        table = table_of(model.get_submodule(parent or ""), name)
        if is_traceable_wrapper_subclass(table.get(name)):
            return Weight(table, name, int(number))
    parent, _, name = path.rpartition(".")
    return Weight(table_of(model.get_submodule(parent), name), name)


def table_of(module: nn.Module, name: str) -> dict[str, Any]:
    return module._parameters if name in module._parameters else module._buffers


def plain_parts(tensor: Tensor | None) -> Iterator[Tensor]:
    """The tensors that an instance of a subclass is made of, in the order in which a trace numbers them."""
    if tensor is None:
        return
    if not is_traceable_wrapper_subclass(tensor):
        yield tensor
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from plain_parts(getattr(tensor, name))


def fits_weights(capture: Capture, model: nn.Module) -> bool:
    """Whether a model has the weights that a captured step was made for, and of these kinds."""
    for node, path in capture.weights.items():
        try:
            weight = find_weight(model, path).now()
        except (AttributeError, KeyError):
            # A module or a weight that it had is gone, or one is no longer made of parts.
            return False
        if weight_kind(weight) != weight_kind(node.meta["val"]):
            return False
    return True


def weight_kind(weight: Tensor | None) -> Any:
    return None if weight is None else (weight.shape, weight.dtype, weight.device)

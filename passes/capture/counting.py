"""How many rows a step picked by values, where their number is no size of the graph but a symbol without a value.

A mixture of experts gives each expert the rows that chose it: ``index(x [48, 32], nonzero(chosen [2, 48])) [u0, 32]``.
The one real call before the trace tells how many these were, so that what is computed of them can be counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..graph.counts import FOUND

PICKING = (
    *(torch.nonzero, Tensor.nonzero, torch.where, Tensor.where, torch.argwhere, Tensor.argwhere),
    *(torch.masked_select, Tensor.masked_select, Tensor.__getitem__),
)
"""Functions whose results have as many rows as their values say."""


def sizes_of(result: Any) -> list[Any]:
    return [size for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor) for size in leaf.shape]


class Counts(TorchFunctionMode):
    """Note the sizes of what `PICKING` functions return, in a real call."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[list[int]] = []

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in PICKING:
            self.sizes.append(sizes_of(result))
        return result


class Counted(TorchFunctionMode):
    """Say of the symbols of a trace what they were in the real call, which made the same calls in the same order."""

    def __init__(self, sizes: list[list[int]]) -> None:
        super().__init__()
        self.sizes = iter(sizes)

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in PICKING:
            for size, real in zip(sizes_of(result), next(self.sizes, [])):
                if isinstance(size, torch.SymInt) and size.node.expr.is_symbol:
                    FOUND.setdefault(size.node.shape_env, {})[size.node.expr] = real
        return result

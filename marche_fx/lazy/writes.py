"""What a loop writes into a late result: kept as a record, and repeated on values that are computed later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ..errors import ArgumentError
from .views import View, through

DRAWS = ("bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_")
"""Functions that write random numbers over what was there. They are drawn when the loop says."""

DROPS = tuple(
    name + ending
    for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "rrelu")
    for ending in ("", "_")
)
"""Functions that write random numbers times what was there."""

RESHAPED = (
    *("t_", "transpose_", "swapaxes_", "swapdims_", "squeeze_", "unsqueeze_", "as_strided_", "resize_", "resize_as_"),
    *("set_", "rename_", "share_memory_", "apply_", "map_"),
)
"""Functions that change what a tensor is, and not its values alone."""

NOTHING = ("detach_", "requires_grad_", "retain_grad")
"""Functions that change no value."""


@dataclass(frozen=True)
class Write:
    """A function that writes its first argument: a view of a result."""

    views: tuple[View, ...]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def on(self, value: Tensor) -> None:
        self.function(through(self.views, value), *self.args, **self.kwargs)

    @classmethod
    def of(
        cls, views: Sequence[View], function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Write:
        """The write with its arguments as they are now: the loop may overwrite them before it is repeated."""
        copied = pytree.tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, (args, kwargs))
        return cls(tuple(views), function, *copied)


def writes_in_place(function: Any) -> bool:
    """Whether ``function`` writes its first argument, by the names that PyTorch gives such functions."""
    name = getattr(function, "__name__", "")
    if name.startswith("__"):
        return name == "__setitem__" or (name.startswith("__i") and name.endswith("__") and name not in IN_NAME_ONLY)
    return name.endswith("_")


IN_NAME_ONLY = ("__int__", "__index__", "__invert__", "__iter__", "__init__", "__init_subclass__")


def refuse_reshaping(name: str) -> None:
    if name in RESHAPED:
        raise ArgumentError(
            f"{name} would change the shape or memory of a result that is computed when it is read; use the form "
            f"without an underscore, as in z = z.{name.removesuffix('_')}(...), or z = z.clone() first"
        )


def in_place(function: Any) -> Callable[..., Any]:
    """A function that writes its first argument as the method of that name, where there is one."""
    return getattr(torch.Tensor, function.__name__, function) if writes_in_place(function) else function

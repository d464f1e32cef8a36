"""Functions that only look at a tensor in another way, so that a late result stays late under them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """One function of those below, with its arguments but the first, and the number of its result if it has several."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    number: int | None = None

    def of(self, tensor: Tensor) -> Tensor:
        found = self.function(tensor, *self.args, **self.kwargs)
        return found if self.number is None else found[self.number]


def through(views: Sequence[View], tensor: Tensor) -> Tensor:
    """``tensor`` as seen through views, one after another."""
    for view in views:
        tensor = view.of(tensor)
    return tensor


NAMES = (
    *("view", "reshape", "flatten", "unflatten", "ravel", "contiguous", "detach", "expand", "select", "narrow"),
    *("transpose", "swapaxes", "swapdims", "permute", "movedim", "moveaxis", "t", "squeeze", "unsqueeze"),
)
PARTS = ("chunk", "split", "tensor_split", "unbind", "split_with_sizes", "hsplit", "vsplit", "dsplit")

VIEWS = {
    own for name in NAMES for own in (getattr(Tensor, name, None), getattr(torch, name, None)) if own is not None
} | {Tensor.T.__get__, Tensor.mT.__get__}  # type: ignore[attr-defined]
"""Functions of one result. Some copy where they must, and then are no views."""

SEVERAL = {
    own for name in PARTS for own in (getattr(Tensor, name, None), getattr(torch, name, None)) if own is not None
}
"""Functions of several results."""

LIKE: dict[Any, Any] = {Tensor.view_as: Tensor.view, Tensor.reshape_as: Tensor.reshape, Tensor.expand_as: Tensor.expand}
"""Functions that take another tensor's shape, and what they are with the shape itself."""


def is_basic(index: Any) -> bool:
    """Whether ``tensor[index]`` is a view: numbers, slices, None and ``...`` alone."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(part is None or type(part) is int or isinstance(part, (slice, EllipsisType)) for part in parts)


def views_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> View | None:
    """What ``function(late, *args, **kwargs)`` is as a view of ``late``; None where it is none."""
    if function in LIKE:
        return View(LIKE[function], (tuple(args[0].shape),), {})
    if function is Tensor.__getitem__ and is_basic(args[0]):
        return View(function, args, kwargs)
    return View(function, args, kwargs) if function in VIEWS or function in SEVERAL else None


def shares_memory(one: Tensor, other: Tensor) -> bool:
    return one.untyped_storage()._cdata == other.untyped_storage()._cdata

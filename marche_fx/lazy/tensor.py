"""Late-bound results: a step's output that runs the step when it is read, knowing which rows are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .rows import rows_read

Read = Callable[[Tensor | None], Tensor]
"""Given the rows read, bool ``[B, R]`` over the output's samples and rows, or None for all, the output's value."""

DESCRIPTIONS = {
    getattr(Tensor, name).__get__
    for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_sparse")
} | {Tensor.size, Tensor.dim, Tensor.numel, Tensor.__len__, Tensor.is_floating_point, Tensor.is_complex}
"""What can be asked of a tensor without its values."""


class LateTensor(Tensor):
    """A tensor whose values are computed when they are first read.

    Reading rows, ``z[rows]``, computes those; any other use computes what the refresh policy chooses. Shape, dtype and
    device are known before.
    """

    read: Read
    dims: tuple[int, int] | None

    @staticmethod
    def __new__(cls, like: Tensor, dims: tuple[int, int] | None, read: Read) -> LateTensor:
        """A stand-in for a tensor of the shape, dtype and device of ``like``.

        ``dims`` are its samples and rows, None where rows cannot be told.
        """
        late = Tensor._make_wrapper_subclass(cls, like.shape, dtype=like.dtype, device=like.device)
        late.dims, late.read = dims, read
        return late

    @classmethod
    def __torch_function__(
        cls, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        late = args[0] if args else None
        if isinstance(late, LateTensor):
            if func in DESCRIPTIONS:
                with torch._C.DisableTorchFunctionSubclass():
                    return func(*args, **(kwargs or {}))
            if func is Tensor.__getitem__ and late.dims is not None:
                index = resolved(args[1])
                return late.read(rows_read(late.shape, late.dims, index))[index]
        return func(*resolved(args), **resolved(kwargs or {}))

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Uses that pass by ``__torch_function__``, from C++."""
        return func(*resolved(args), **resolved(kwargs or {}))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return repr(resolved(self))


def resolved(tree: Any) -> Any:
    """``tree`` with the value of every late tensor in place of it."""
    return pytree.tree_map(lambda leaf: leaf.read(None) if isinstance(leaf, LateTensor) else leaf, tree)

"""Late-bound results: a step's output that runs the step when it is read, knowing which rows are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

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


def rows_read(shape: torch.Size, dims: tuple[int, int], index: Any) -> Tensor:
    """Which rows ``tensor[index]`` reads of a tensor of this ``shape``: bool ``[B, R]`` along its ``dims``."""
    if dims == (0, 1) and isinstance(index, Tensor) and index.dtype == torch.bool and index.shape == shape[:2]:
        # The mask itself says it, and to index by it would wait for the device. A copy: the loop may write into it.
        return index.clone()
    return rows_addressed(shape, dims, index)


def rows_addressed(shape: torch.Size, dims: tuple[int, int], index: Any) -> Tensor:
    """The same for any index, found by indexing the numbers of the rows."""
    samples, rows = shape[dims[0]], shape[dims[1]]
    device = next((leaf.device for leaf in pytree.tree_leaves(index) if isinstance(leaf, Tensor)), None)
    # Index a tensor that holds the number of its own row everywhere; the other dimensions take no memory.
    numbers = torch.arange(samples * rows, device=device).view(samples, rows)
    addressed = leading_dims(index)
    if dims == (0, 1) and addressed is not None and addressed <= 2:
        found = numbers[index]
    else:
        order = [*dims, *(dim for dim in range(len(shape)) if dim not in dims)]
        spread = numbers.view(samples, rows, *[1] * (len(shape) - 2)).expand([shape[dim] for dim in order])
        found = spread.permute([order.index(dim) for dim in range(len(shape))])[index]
    read = torch.zeros(samples * rows, dtype=torch.bool, device=device)
    read[found.reshape(-1)] = True
    return read.view(samples, rows)


def leading_dims(index: Any) -> int | None:
    """How many leading dimensions ``index`` addresses; None where it is counted from the end."""
    count = 0
    for part in index if isinstance(index, tuple) else (index,):
        if part is Ellipsis:
            return None
        if part is not None:
            mask = isinstance(part, Tensor) and part.dtype in (torch.bool, torch.uint8)
            count += part.ndim if mask else 1
    return count

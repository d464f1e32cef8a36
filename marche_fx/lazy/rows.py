"""Which rows of a result an index reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


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

"""Which rows of a result a view of it has, and which of them an index reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .views import View, through


@dataclass(frozen=True)
class RowNumbers:
    """The rows of a result ``[.., B, .., R, ..]``, and of views of it, as numbers: row r of sample b is ``b R + r``.

    A tensor that holds the number of its own row everywhere is a strided view of all numbers, so that views of the
    result are views of it: what they leave out or put elsewhere is read off its sizes and strides.

    Attributes:
        shape: of the result. dims: its samples and rows.
    """

    shape: torch.Size
    dims: tuple[int, int]

    @property
    def samples(self) -> int:
        return self.shape[self.dims[0]]

    @property
    def rows(self) -> int:
        return self.shape[self.dims[1]]

    def of(self, views: Sequence[View], device: torch.device | str | None = None) -> Tensor | None:
        """The numbers in a view of the result; None where they are no view of the numbers."""
        count = self.samples * self.rows
        numbers = torch.empty(count, device="meta") if device == "meta" else torch.arange(count, device=device)
        strides = [0] * len(self.shape)
        strides[self.dims[0]], strides[self.dims[1]] = self.rows, 1
        try:
            return through(views, numbers.as_strided(self.shape, strides))
        except RuntimeError:
            # Rows were joined to what is in a row.
            return None

    def rows_of_a_sample(self, views: Sequence[View]) -> int:
        """How many rows a view has of each of its samples; all where it cannot be told."""
        numbers = self.of(views, "meta")
        if numbers is None:
            return self.rows
        places = [(size, stride) for size, stride in zip(numbers.shape, numbers.stride()) if stride]
        count = math.prod(size for size, _ in places)
        samples = math.prod(size for size, stride in places if stride % self.rows == 0) if self.rows > 1 else count
        return min(self.rows, -(-count // max(samples, 1)))

    def are_whole(self, views: Sequence[View]) -> bool:
        """Whether samples and rows are the first two dimensions of a view, and all are there."""
        numbers = self.of(views, "meta")
        own = () if numbers is None else tuple(zip(numbers.shape, numbers.stride()))[:2]
        return own == ((self.samples, self.rows), (self.rows, 1))

    def read(self, views: Sequence[View], index: Any) -> Tensor | None:
        """Which rows ``view[index]`` reads: bool ``[B, R]``; None where it cannot be told."""
        is_mask = isinstance(index, Tensor) and index.dtype == torch.bool
        if is_mask and index.shape == (self.samples, self.rows) and self.are_whole(views):
            # The mask itself says it, and to index by it would wait for the device. A copy: the loop may write into it.
            return index.clone()
        device = next((leaf.device for leaf in pytree.tree_leaves(index) if isinstance(leaf, Tensor)), None)
        numbers = self.of(views, device)
        if numbers is None:
            return None
        addressed = leading_dims(index)
        while addressed is not None and numbers.ndim > max(addressed, 1) and not numbers.stride(-1):
            # The same number everywhere: one of them says as much, and takes no memory.
            numbers = numbers.select(-1, 0)
        return self.mask(numbers[index])

    def all_of(self, views: Sequence[View]) -> Tensor | None:
        """The rows that a view has: bool ``[B, R]``; None where it cannot be told."""
        numbers = self.of(views)
        while numbers is not None and numbers.ndim and not numbers.stride(-1):
            numbers = numbers.select(-1, 0)
        return None if numbers is None else self.mask(numbers)

    def mask(self, numbers: Tensor) -> Tensor:
        read = torch.zeros(self.samples * self.rows, dtype=torch.bool, device=numbers.device)
        read[numbers.reshape(-1)] = True
        return read.view(self.samples, self.rows)


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

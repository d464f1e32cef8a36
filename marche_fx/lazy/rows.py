"""Which tokens a view of a result is computed of, and which of them an index reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .views import View, through


@dataclass(frozen=True)
class RowNumbers:
    """The tokens that each element of a result is computed of, as numbers: ``sample N + token``.

    A tensor that holds the number of its token everywhere is indexed and viewed as the result is, so what a view leaves
    out or an index reads need not be understood.

    Attributes:
        shape: of the result. samples, tokens: B and N.
        given: int64 ``[K, ...]``, for each element its K tokens, with size 1 along dimensions where they are the same;
            a function where they are only known when the step runs, which gives None where they cannot be told.
        dims: the result's samples and rows, where it has those one by one, its first row being token ``offset``: then
            the numbers are a strided view of all numbers, and need no memory.
    """

    shape: torch.Size
    samples: int
    tokens: int
    given: Tensor | Callable[[], Tensor | None] | None = None
    dims: tuple[int, int] | None = None
    offset: int = 0

    @classmethod
    def plain(cls, shape: torch.Size, dims: tuple[int, int]) -> RowNumbers:
        """Of a result whose rows are all tokens."""
        return cls(shape, shape[dims[0]], shape[dims[1]], dims=dims)

    @property
    def rows(self) -> int:
        """Tokens of a sample that the result is computed of."""
        return self.tokens if self.dims is None else self.shape[self.dims[1]]

    def of(self, views: Sequence[View], device: torch.device | str | None = None) -> list[Tensor] | None:
        """The K numbers in a view of the result; None where they are no view of the numbers."""
        if self.dims is not None:
            count = self.samples * self.tokens
            numbers = torch.empty(count, device="meta") if device == "meta" else torch.arange(count, device=device)
            strides = [0] * len(self.shape)
            strides[self.dims[0]], strides[self.dims[1]] = self.tokens, 1
            found = [numbers.as_strided(self.shape, strides, self.offset)]
        else:
            given = self.given() if callable(self.given) else self.given
            if given is None:
                return None
            found = [own.expand(self.shape) for own in (given if device == "meta" else given.to(device))]
        try:
            return [through(views, own) for own in found]
        except RuntimeError:
            # Rows were joined to what is in a row.
            return None

    def share(self, views: Sequence[View]) -> float:
        """How many of a sample's tokens a view is computed of, over those of the result; all where it is not known."""
        found = self.of(views, "meta" if self.dims is not None else None)
        if found is None:
            return 1.0
        if self.dims is None:
            return len(torch.cat([own.flatten() for own in map(narrow, found)]).unique()) / (self.samples * self.rows)
        (numbers,) = found
        places = [(size, stride) for size, stride in zip(numbers.shape, numbers.stride()) if stride]
        count = math.prod(size for size, _ in places)
        samples = math.prod(size for size, stride in places if stride % self.tokens == 0) if self.tokens > 1 else count
        return min(1.0, -(-count // max(samples, 1)) / self.rows)

    def are_whole(self, views: Sequence[View]) -> bool:
        """Whether samples and all tokens are the first two dimensions of a view, in their order."""
        if self.dims is None or self.rows != self.tokens:
            return False
        found = self.of(views, "meta")
        own = () if found is None else tuple(zip(found[0].shape, found[0].stride()))[:2]
        return own == ((self.samples, self.tokens), (self.tokens, 1))

    def read(self, views: Sequence[View], index: Any) -> Tensor | None:
        """The tokens that ``view[index]`` is computed of: bool ``[B, N]``; None where it cannot be told."""
        is_mask = isinstance(index, Tensor) and index.dtype == torch.bool
        if is_mask and index.shape == (self.samples, self.tokens) and self.are_whole(views):
            # The mask itself says it, and to index by it would wait for the device. A copy: the loop may write into it.
            return index.clone()
        device = next((leaf.device for leaf in pytree.tree_leaves(index) if isinstance(leaf, Tensor)), None)
        found = self.of(views, device)
        if found is None:
            return None
        addressed = leading_dims(index)
        # The same number everywhere: one of them says as much, and takes no memory.
        small = found if addressed is None else [narrow(own, max(addressed, 1)) for own in found]
        return self.mask([own[index] for own in small])

    def all_of(self, views: Sequence[View]) -> Tensor | None:
        """The tokens that a view is computed of: bool ``[B, N]``; None where it cannot be told."""
        found = self.of(views)
        return None if found is None else self.mask([narrow(own) for own in found])

    def mask(self, numbers: Sequence[Tensor]) -> Tensor:
        read = torch.zeros(self.samples * self.tokens, dtype=torch.bool, device=numbers[0].device)
        for own in numbers:
            read[own.reshape(-1)] = True
        return read.view(self.samples, self.tokens)

    def elements(self, tokens: Tensor) -> Tensor:
        """The elements of the result that are computed of one of the ``tokens``, bool ``[B, N]``: bool of its shape."""
        found, flat = self.of((), tokens.device), tokens.flatten()
        assert found is not None
        marked = torch.zeros(self.shape, dtype=torch.bool, device=flat.device)
        for own in found:
            # Looked up once where the number is the same.
            sizes = [1 if stride == 0 else size for size, stride in zip(own.shape, own.stride())]
            marked |= flat[own[tuple(slice(size) for size in sizes)]]
        return marked


def narrow(numbers: Tensor, least: int = 0) -> Tensor:
    """Numbers without last dimensions along which they are the same, of more than ``least`` dimensions."""
    while numbers.ndim > least and numbers.ndim and not numbers.stride(-1):
        numbers = numbers.select(-1, 0)
    return numbers


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

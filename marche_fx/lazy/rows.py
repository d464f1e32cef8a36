"""Which tokens each element of a result is computed of."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from .geometry import sent


@dataclass(frozen=True)
class RowNumbers:
    """The tokens that each element of a result is computed of, as numbers: ``sample N + token``.

    Attributes:
        shape: of the result. samples, tokens: B and N.
        given: int64 ``[K, ...]``, for each element its K tokens, with size 1 along dimensions where they are the same;
            a function where they are only known when the step runs, which gives None where they cannot be told.
        dims: the result's samples and rows, where it has those one by one, its first row being token ``offset``.
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

    @cached_property
    def numbers(self) -> Tensor | None:
        """int64 ``[K, ...]`` as ``given``; None where they cannot be told."""
        if self.dims is None:
            return self.given() if callable(self.given) else self.given
        own = torch.arange(self.samples)[:, None] * self.tokens + self.offset + torch.arange(self.rows)
        sizes = [1] * len(self.shape)
        sizes[self.dims[0]], sizes[self.dims[1]] = own.shape
        return (own if self.dims[0] < self.dims[1] else own.T).reshape(1, *sizes)

    @cached_property
    def row_dims(self) -> tuple[int, ...]:
        """Dimensions of the result along which tokens differ, ascending: its rows, in the order of these dimensions."""
        if self.dims is not None:
            sizes = dict(zip(self.dims, (self.samples, self.rows)))
            return tuple(dim for dim in sorted(sizes) if sizes[dim] > 1)
        return () if self.numbers is None else tuple(dim for dim, size in enumerate(self.numbers.shape[1:]) if size > 1)

    def of_rows(self, rows: Tensor) -> Tensor:
        """The tokens that these rows ``[R]`` are computed of: bool ``[B, N]``."""
        found = torch.zeros(self.samples * self.tokens, dtype=torch.bool, device=rows.device)
        for own in self.among_tokens(rows):
            found[own] = True
        return found.view(self.samples, self.tokens)

    def among_tokens(self, rows: Tensor) -> Sequence[Tensor]:
        """Of rows ``[R]`` the numbers of their K tokens: ``[R]`` each."""
        if self.dims is None:
            assert self.numbers is not None
            return [own.reshape(-1)[rows] for own in sent(self.numbers, rows.device)]
        if self.dims[0] < self.dims[1]:
            sample, row = rows // self.rows, rows % self.rows
        else:
            sample, row = rows % self.samples, rows // self.samples
        return [sample * self.tokens + self.offset + row]

    def share(self, tokens: Tensor) -> Tensor:
        """How many of a sample's tokens are among ``tokens``, bool ``[B, N]``, over those of the result, at most."""
        every = self.rows if self.dims is not None else math.prod(self.shape[dim] for dim in self.row_dims)
        return tokens.sum(1).amax() / min(every, self.rows)

    def elements(self, tokens: Tensor) -> Tensor:
        """The elements of the result that are computed of one of the ``tokens``, bool ``[B, N]``: bool of its shape."""
        assert self.numbers is not None
        flat, marked = tokens.flatten(), torch.zeros(self.shape, dtype=torch.bool, device=tokens.device)
        for own in sent(self.numbers, flat.device):
            marked |= flat[own]
        return marked

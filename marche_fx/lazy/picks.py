"""What an index of tensors reads of a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import Geometry


@dataclass(frozen=True)
class Pick:
    """``view[indices]``.

    Attributes:
        indices: for each dimension an index, None for all of it; a mask stands for as many dimensions as it has.
    """

    indices: tuple[Tensor | None, ...]

    names_rows = True
    """Whether the loop names the rows, however many they are."""

    @classmethod
    def along(cls, dim: int, index: Tensor) -> Pick:
        return cls((*[None] * dim, index))

    def of(self, value: Tensor) -> Tensor:
        found: Tensor = torch.ops.aten.index.Tensor(value, list(self.indices))
        return found

    def addressed(self, rank: int) -> list[bool]:
        """For each of ``rank`` dimensions whether an index is of it."""
        found: list[bool] = []
        for index in self.indices:
            found += [False] if index is None else [True] * (index.ndim if is_mask(index) else 1)
        return found + [False] * (rank - len(found))

    def is_of_rows(self, geometry: Geometry) -> bool:
        """Whether no index is of channels."""
        return not any(
            own and size > 1 and stride
            for own, size, stride in zip(
                self.addressed(geometry.like.ndim), geometry.like.shape, geometry.channels.stride()
            )
        )

    def rest(self, geometry: Geometry) -> list[int]:
        """Dimensions of channels, which no index is of."""
        addressed = self.addressed(geometry.like.ndim)
        return [dim for dim, own in enumerate(addressed) if not own and dim not in geometry.frame.dims]

    def rows(self, geometry: Geometry, device: torch.device) -> Tensor:
        """Of each element that is read the number of its row; where no index is of channels, one for a row of them."""
        rest = self.rest(geometry) if self.is_of_rows(geometry) else []
        shape = [1 if dim in rest else size for dim, size in enumerate(geometry.like.shape)]
        return self.of(numbered(shape, geometry.rows, device))

    def channels(self, geometry: Geometry, device: torch.device) -> Tensor:
        """Of each element that is read the number of its channel."""
        return self.of(numbered(geometry.like.shape, geometry.channels, device))

    def put_together(self, geometry: Geometry, numbers: Tensor, rows: Tensor) -> Tensor:
        """The elements of rows ``[R, C]``, which are those of ``numbers`` in their order."""
        rest = self.rest(geometry)
        channels = geometry.channels_of(rows, rest)
        # Where the dimensions of channels, of one position each in `numbers`, came to stand.
        places = [self.place(dim, geometry.like.ndim, numbers.ndim) for dim in rest]
        kept = [size for place, size in enumerate(numbers.shape) if place not in places]
        found = channels.reshape(*kept, *channels.shape[1:])
        return found.movedim(tuple(range(len(kept), found.ndim)), tuple(places)).contiguous()

    def rows_first(self, geometry: Geometry, numbers: Tensor, value: Tensor) -> Tensor:
        """A value that is written over ``view[indices]``, ``[R, ...]`` for its rows ``numbers``: a copy of its own."""
        rest = self.rest(geometry)
        places = [self.place(dim, geometry.like.ndim, numbers.ndim) for dim in rest]
        shape = list(numbers.shape)
        for place, dim in zip(places, rest):
            shape[place] = geometry.like.shape[dim]
        full = value.to(numbers.device).expand(shape)
        last = tuple(range(full.ndim - len(places), full.ndim))
        return full.movedim(places, last).reshape(numbers.numel(), *(shape[place] for place in places)).clone()

    def place(self, dim: int, rank: int, result_rank: int) -> int:
        """Where a dimension that no index is of stands in what is read."""
        addressed = self.addressed(rank)
        left = [own for own in range(rank) if not addressed[own]]
        width = result_rank - len(left)
        first = addressed.index(True)
        are_together = all(addressed[first : first + sum(addressed)])
        before = len([own for own in left if own < first]) if are_together else 0
        at = left.index(dim)
        return at if at < before else at + width


def is_mask(index: Tensor) -> bool:
    return index.dtype in (torch.bool, torch.uint8)


def numbered(shape: Sequence[int], places: Tensor, device: torch.device) -> Tensor:
    """The numbers that the strides of ``places`` stand for, as a view without memory of its own."""
    steps = zip(shape, places.stride())
    last = int(places.storage_offset()) + sum((size - 1) * stride for size, stride in steps if size > 0)
    return torch.arange(last + 1, device=device).as_strided(tuple(shape), places.stride(), places.storage_offset())

"""Where the elements of a view stand: in memory, and as row and channel of the value that is viewed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor

from .trees import key_of

MOST_KNOWN = 256
"""Views of one view that are remembered, and values whose geometry is: a loop's later steps see the same ones."""


UNKNOWN: Any = object()


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers on a device; those on the host go there without waiting for what it is doing."""
    return numbers.to(device, non_blocking=numbers.device.type == "cpu")


@dataclass(frozen=True)
class Frame:
    """The rows of a value: its positions along ``dims``, ascending, numbered in their order."""

    shape: torch.Size
    dims: tuple[int, ...]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.shape[dim] for dim in self.dims)

    @cached_property
    def count(self) -> int:
        return math.prod(self.sizes)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Of the numbers of rows along ``dims``."""
        return tuple(math.prod(self.sizes[number + 1 :]) for number in range(len(self.dims)))

    @cached_property
    def channels(self) -> int:
        """Elements of a row."""
        return math.prod(size for dim, size in enumerate(self.shape) if dim not in self.dims)

    def positions(self, rows: Tensor) -> list[Tensor]:
        """Where rows ``[R]`` are along each of ``dims``: ``[R]`` each."""
        return [rows // stride % size for stride, size in zip(self.strides, self.sizes)]

    def rows_first(self, value: Tensor) -> Tensor:
        """A value with the dimensions of its rows before the others: a view."""
        return value.movedim(self.dims, tuple(range(len(self.dims))))

    def taken(self, value: Tensor, rows: Tensor) -> Tensor:
        """These rows ``[R]`` of a value: ``[R, C]``, in memory one behind the other."""
        return self.rows_first(value).reshape(self.count, self.channels)[rows].contiguous()

    def cut_part(self, part: Tensor, count: int) -> Tensor:
        """``[R, C]`` of ``count`` rows that stand along the last of ``dims``, where the others have one position.

        Along other dimensions a part may be as narrow as broadcasting allows.
        """
        sizes = [1 if dim in self.dims else size for dim, size in enumerate(self.shape)]
        if not self.dims:
            # The one row that there is, as often as it was asked for.
            return part.expand(sizes).reshape(1, self.channels).expand(count, -1).contiguous()
        sizes[self.dims[-1]] = count
        return part.expand(sizes).movedim(self.dims[-1], 0).reshape(count, self.channels).contiguous()

    def put(self, value: Tensor, rows: Tensor, part: Tensor) -> None:
        """Write ``part [R, C]`` over these rows ``[R]`` of a value."""
        front = self.rows_first(value)
        front[tuple(self.positions(rows))] = part.reshape(len(rows), *front.shape[len(self.dims) :])


@dataclass(frozen=True, eq=False)
class Geometry:
    """A view. The three tensors have its shape, no values, and strides that say where an element stands.

    Attributes:
        like: in memory. rows: among the rows of what is viewed. channels: among the channels of a row.
    """

    like: Tensor
    rows: Tensor
    channels: Tensor

    @cached_property
    def views(self) -> dict[Any, list[Geometry] | None]:
        """Those of this one that were seen before, by function and arguments."""
        return {}

    @classmethod
    def whole(cls, like: Tensor, frame: Frame) -> Geometry:
        """All of a value that stands in memory as ``like`` does."""
        return whole_of(tuple(like.shape), like.stride(), like.dtype, frame)

    def narrowed(self, dim: int, start: int, size: int) -> Geometry:
        """``size`` positions from ``start`` on along a dimension."""
        return Geometry(*(own.narrow(dim, start, size) for own in (self.like, self.rows, self.channels)))

    def seen(self, view: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> list[Geometry] | None:
        """What a view of this one shows, in as many tensors as it has; None where rows are joined with channels."""
        key = view, key_of((args, kwargs))
        known = self.views.get(key, UNKNOWN)
        if known is not UNKNOWN:
            return known
        if len(self.views) >= MOST_KNOWN:
            self.views.clear()
        return self.views.setdefault(key, self.found_view(view, args, kwargs))

    def found_view(
        self, view: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
    ) -> list[Geometry] | None:
        like = view(self.like, *args, **kwargs)
        try:
            others = [view(own, *args, **kwargs) for own in (self.rows, self.channels)]
        except RuntimeError:
            return None
        parts = zip(*([own] if isinstance(own, Tensor) else own for own in (like, *others)))
        found = [Geometry(*part) for part in parts]
        return found if all(own.is_told_apart for own in found) else None

    @property
    def is_told_apart(self) -> bool:
        """Whether no dimension is of rows and of channels at once."""
        strides = zip(self.like.shape, self.rows.stride(), self.channels.stride())
        return all(size == 1 or not (row and channel) for size, row, channel in strides)

    @cached_property
    def frame(self) -> Frame:
        strides = zip(self.like.shape, self.rows.stride())
        return Frame(self.like.shape, tuple(dim for dim, (size, stride) in enumerate(strides) if size > 1 and stride))

    @cached_property
    def row_dims(self) -> tuple[int, ...]:
        """Those of ``frame``, and before them the ones along which rows are repeated, as a sample expanded to many."""
        own = self.frame.dims
        strides = zip(self.like.shape, self.rows.stride(), self.channels.stride())
        repeated = [dim for dim, (size, row, channel) in enumerate(strides) if size > 1 and not row and not channel]
        return tuple(sorted([*own, *(dim for dim in repeated if own and dim < own[0])]))

    @cached_property
    def row_strides(self) -> tuple[int, ...]:
        """Along the dimensions of ``frame`` the distance between rows of what is viewed."""
        return tuple(self.rows.stride(dim) for dim in self.frame.dims)

    def numbers(self) -> Tensor:
        """Of each row of the view its number in what is viewed: ``[R]``, on the host, which knows them."""
        found = torch.full((), int(self.rows.storage_offset()))
        for size, stride in zip(self.frame.sizes, self.row_strides):
            found = found[..., None] + torch.arange(size) * stride
        return found.reshape(-1)

    def of(self, value: Tensor) -> Tensor:
        """The view of a value that stands in memory as it should."""
        # Which may itself begin further on in its storage.
        start = value.storage_offset() + self.like.storage_offset()
        return value.as_strided(self.like.shape, self.like.stride(), start)

    def channels_of(self, rows: Tensor, dims: Sequence[int] | None = None) -> Tensor:
        """The view's channels of rows ``[R, C]``: a view ``[R, ...]``, along ``dims``, or all that are not of rows."""
        kept = [dim for dim in range(self.like.ndim) if dim not in self.frame.dims] if dims is None else dims
        sizes = (len(rows), *(self.like.shape[dim] for dim in kept))
        strides = (rows.stride(0), *(self.channels.stride(dim) for dim in kept))
        return rows.as_strided(sizes, strides, rows.storage_offset() + self.channels.storage_offset())

    @cached_property
    def channel_count(self) -> int:
        """How many channels of a row it shows."""
        return math.prod(size for size, stride in zip(self.like.shape, self.channels.stride()) if size > 1 and stride)


@lru_cache(MOST_KNOWN)
def whole_of(shape: tuple[int, ...], strides: tuple[int, ...], dtype: torch.dtype, frame: Frame) -> Geometry:
    """The geometry of a value without any view."""
    like = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
    rows, channels, step = [0] * like.ndim, [0] * like.ndim, 1
    for dim in reversed(range(like.ndim)):
        if dim in frame.dims:
            rows[dim] = frame.strides[frame.dims.index(dim)]
        else:
            channels[dim], step = step, step * like.shape[dim]
    return Geometry(like, stand_in(like, rows), stand_in(like, channels))


def stand_in(like: Tensor, strides: Sequence[int]) -> Tensor:
    """A tensor of the same shape and dtype, with these strides and no values."""
    return torch.empty_strided(like.shape, tuple(strides), dtype=like.dtype, device="meta")

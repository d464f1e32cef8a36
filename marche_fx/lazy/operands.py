"""What an operator reads of expressions and of tensors, for rows of what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .demand import Compute, Demand, Rows, Source
from .expressions import Expression
from .geometry import Frame, Geometry


class Operand(Protocol):
    """What an operator reads, row by row of what it gives."""

    @property
    def sources(self) -> frozenset[Source]:
        """Calls whose results it is computed of."""

    @property
    def depth(self) -> int:
        """That of the expression that it reads."""

    def prepare(self, rows: Rows | None, frame: Frame, demand: Demand) -> Compute:
        """Ask for these rows of an operator's value, whose frame is given.

        Returns:
            what computes the operand as it is, with as many positions along the last of the frame's dimensions as there
            are rows, and one along its others; the whole operand where None.
        """


@dataclass(frozen=True)
class Place:
    """Where an operand has the rows of an operator's value.

    Attributes:
        dims: for each of the value's dimensions of rows, the operand's that is the same; None where it has none, or
            one position.
        along: dimension of the operand at the last of them.
    """

    dims: tuple[int | None, ...]
    along: int | None

    @property
    def every(self) -> set[int]:
        return {dim for dim in (*self.dims, self.along) if dim is not None}


@dataclass(frozen=True)
class Seen:
    """An expression through a view, as an operand."""

    expression: Expression
    geometry: Geometry
    place: Place

    @property
    def sources(self) -> frozenset[Source]:
        return self.expression.sources

    @property
    def depth(self) -> int:
        return self.expression.depth

    def prepare(self, rows: Rows | None, frame: Frame, demand: Demand) -> Compute:
        if rows is None:
            whole = demand.want(self.expression, None)
            return lambda: self.geometry.of(whole())
        if not self.geometry.frame.dims:
            alone = demand.want(self.expression, Rows(self.geometry.numbers(), rows.are_chosen))
            return lambda: self.part(alone(), len(rows), 0)
        found = demand.want(self.expression, self.moved(rows, frame))
        return lambda: self.part(found(), len(rows), self.expression.frame.channels)

    def moved(self, rows: Rows, frame: Frame) -> Rows:
        """The rows of the expression that rows of the operator's value are computed of."""
        strides = [0 if dim is None else self.geometry.rows.stride(dim) for dim in self.place.dims]
        start, every = int(self.geometry.rows.storage_offset()), self.expression.frame.count
        if start == 0 and tuple(strides) == frame.strides and every == frame.count:
            return rows
        moved = torch.full_like(rows.numbers, start)
        for stride, position in zip(strides, frame.positions(rows.numbers)):
            if stride:
                moved = moved + stride * position
        return Rows(moved, rows.are_chosen)

    def part(self, rows: Tensor, count: int, stride: int) -> Tensor:
        """Rows ``[R, C]`` in the operand's shape, ``stride`` elements from one to the next."""
        shape, strides = list(self.geometry.like.shape), list(self.geometry.channels.stride())
        for dim in self.place.every:
            shape[dim], strides[dim] = (count, stride) if dim == self.place.along else (1, 0)
        return rows.as_strided(shape, strides, rows.storage_offset() + self.geometry.channels.storage_offset())


@dataclass(frozen=True)
class Plain:
    """A tensor that is there, as an operand."""

    value: Tensor
    place: Place

    @property
    def sources(self) -> frozenset[Source]:
        return frozenset()

    @property
    def depth(self) -> int:
        return 0

    def prepare(self, rows: Rows | None, frame: Frame, demand: Demand) -> Compute:
        own = [dim for dim in self.place.dims if dim is not None]
        if rows is None or not own:
            return lambda: self.value
        positions = [
            at for at, dim in zip(frame.positions(rows.on(self.value.device)), self.place.dims) if dim is not None
        ]
        kept = [1 if dim in own else size for dim, size in enumerate(self.value.shape)]

        def part() -> Tensor:
            assert self.place.along is not None
            cut = self.value.movedim(own, tuple(range(len(own))))[tuple(positions)]
            return cut.reshape(len(rows), *kept).movedim(0, self.place.along).squeeze(self.place.along + 1)

        return part


@dataclass(frozen=True, eq=False)
class Looked:
    """An expression through a view, among the arguments of an operator."""

    expression: Expression
    geometry: Geometry

    @classmethod
    def all_of(cls, expression: Expression) -> Looked:
        return cls(expression, Geometry.whole(expression.like, expression.frame))

    def prepare(self, demand: Demand) -> Compute:
        """Ask for what it shows."""
        is_all = self.geometry.frame.count == self.expression.frame.count
        whole = demand.want_all(self.expression, None if is_all else Rows(self.geometry.numbers()))
        return lambda: self.geometry.of(whole())


def placed(leaf: Tensor | Looked, place: Place) -> Seen | Plain:
    """An argument of an operator as an operand; of a tensor the values that it has now."""
    if isinstance(leaf, Looked):
        return Seen(leaf.expression, leaf.geometry, place)
    return Plain(leaf.clone(), place)

"""What late tensors hold: how a value is computed, of rows or as a whole.

An expression never changes: a write gives another one. Its rows are asked for by a `Demand`, first of everything that
they are computed of; only then is a step run, and then the rows are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from .demand import Compute, Demand, Rows, Source
from .geometry import Frame, Geometry, stand_in
from .rows import RowNumbers

MOST = 0.8
"""A slice of more than this share of a sample's rows is read as the whole is."""


class Expression:
    """A value that can be computed row by row.

    Attributes:
        like: a tensor of its shape, dtype and strides without values. frame: its rows. sources: calls whose results
            it is computed of.
    """

    def __init__(
        self, like: Tensor, frame: Frame, device: torch.device, sources: frozenset[Source] = frozenset()
    ) -> None:
        self.like = like
        self.frame = frame
        self.device = device
        self.sources = sources

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        """Ask for what these rows are computed of; all rows where None.

        Returns:
            what computes the rows ``[R, C]`` when the demand has been met, in memory one behind the other; where None,
            the value in its own shape.
        """
        raise NotImplementedError


class Result(Expression):
    """A result of a step."""

    def __init__(
        self, like: Tensor, device: torch.device, source: Source, number: int, numbers: RowNumbers | None
    ) -> None:
        frame = Frame(like.shape, () if numbers is None else numbers.row_dims)
        super().__init__(like, frame, device, frozenset({source}))
        self.source = source
        self.number = number
        self.numbers = numbers

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        tokens = None if rows is None else self.tokens_of(rows)
        demand.ask(self.source, tokens)

        def compute() -> Tensor:
            value: Tensor = demand.results[self.source][self.number]
            return as_like(value, self.like) if rows is None else self.frame.taken(value, rows.on(value.device))

        return compute

    def read(self, tokens: Tensor | None) -> Tensor:
        """All of it, with the rows of ``tokens``, bool ``[B, N]``, computed; as a policy chooses where None."""
        found: Tensor = self.source.read(tokens)[self.number]
        return found

    def tokens_of(self, rows: Rows) -> Tensor | None:
        """The tokens that rows are computed of, bool ``[B, N]``; None where they are not known, or all are meant."""
        if self.numbers is None or self.numbers.numbers is None:
            return None
        tokens = self.numbers.of_rows(rows.numbers)
        if not rows.are_chosen and self.numbers.share(tokens) > MOST:
            return None
        return tokens.to(self.device)


class Given(Expression):
    """Values that are there, such as random numbers drawn for all rows."""

    def __init__(self, value: Tensor, frame: Frame) -> None:
        super().__init__(stand_in(value, value.stride()), frame, value.device)
        self.value = value

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        if rows is None:
            return lambda: self.value
        return lambda: self.frame.taken(self.value, rows.on(self.device))


class Blank(Expression):
    """Memory of which every row is written before it is read."""

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        if rows is None:
            return lambda: torch.empty_strided(
                self.like.shape, self.like.stride(), dtype=self.like.dtype, device=self.device
            )
        return lambda: torch.empty(len(rows), self.frame.channels, dtype=self.like.dtype, device=self.device)


class Operand(Protocol):
    """What an operator reads, row by row of what it gives."""

    @property
    def sources(self) -> frozenset[Source]:
        """Calls whose results it is computed of."""

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


def placed(leaf: Tensor | Looked, place: Place) -> Seen | Plain:
    """An argument of an operator as an operand; of a tensor the values that it has now."""
    if isinstance(leaf, Looked):
        return Seen(leaf.expression, leaf.geometry, place)
    return Plain(leaf.clone(), place)


@dataclass(frozen=True, eq=False)
class Operation:
    """An operator with its operands.

    Attributes:
        run: the operator, given its operands. frame: of its results.
    """

    run: Callable[[Sequence[Any]], Any]
    operands: tuple[Operand, ...]
    frame: Frame

    @property
    def reads_part(self) -> bool:
        """Whether it reads views that do not show all rows of what they are views of."""
        seen = [own for own in self.operands if isinstance(own, Seen)]
        return any(own.geometry.frame.count < own.expression.frame.count for own in seen)

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        found = [own.prepare(rows, self.frame, demand) for own in self.operands]
        return lambda: self.run([own() for own in found])


class Operated(Expression):
    """One result of an operator that computes each row of its rows alone."""

    def __init__(
        self,
        like: Tensor,
        frame: Frame,
        device: torch.device,
        operation: Operation,
        number: int | None,
    ) -> None:
        super().__init__(like, frame, device, sources_of(operation.operands))
        self.operation = operation
        self.number = number

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        # Of views of some rows these are asked for, and not the whole that they are views of.
        asked = Rows(torch.arange(self.frame.count)) if rows is None and self.operation.reads_part else rows
        found = demand.want(self.operation, asked)

        def compute() -> Tensor:
            value = found() if self.number is None else found()[self.number]
            if asked is None:
                return as_like(value, self.like)
            part = self.frame.cut_part(value, len(asked))
            return part if rows is not None else in_shape(part, self)

        return compute


class Chosen(Expression):
    """``where(mask, one, other)`` of whole rows: of each operand only the rows that are taken are computed."""

    def __init__(
        self, like: Tensor, frame: Frame, device: torch.device, mask: Operand, one: Operand, other: Operand
    ) -> None:
        super().__init__(like, frame, device, sources_of((one, other)))
        self.mask = mask
        self.sides = (one, other)

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        every = Rows(torch.arange(self.frame.count)) if rows is None else rows
        mask = self.frame.cut_part(self.mask.prepare(every, self.frame, demand)(), len(every))[:, 0]
        parts = []
        for side, taken in zip(self.sides, (mask, ~mask)):
            places = taken.nonzero()[:, 0]
            if len(places):
                own = Rows(every.on(self.device)[places], are_chosen=True)
                parts.append((places, side.prepare(own, self.frame, demand)))

        def compute() -> Tensor:
            found = torch.empty(len(every), self.frame.channels, dtype=self.like.dtype, device=self.device)
            for places, part in parts:
                found[places] = self.frame.cut_part(part(), len(places)).to(found.dtype)
            return found if rows is not None else in_shape(found, self)

        return compute


class Written(Expression):
    """A value into some of whose rows another was written.

    Args:
        rows: the rows of ``source`` that were written, ``[M]``, each once; row by row they are those of ``value``,
            which has the frame ``written``. None for all of them in their order. geometry: a view that shows which
            channels of a row were. are_chosen: whether the loop named them, by a mask or an index.
    """

    def __init__(
        self,
        source: Expression,
        rows: Tensor | None,
        geometry: Geometry,
        value: Operand,
        written: Frame,
        *,
        are_chosen: bool = False,
    ) -> None:
        super().__init__(source.like, source.frame, source.device, source.sources | value.sources)
        self.source = source
        self.geometry = geometry
        self.value = value
        self.written = written
        self.are_chosen = are_chosen
        self.covers = geometry.channel_count == source.frame.channels
        self.place: Tensor | None = None
        """For each row of the source its number among the written ones; -1 where it is not; None where all are."""
        if rows is not None:
            numbers = torch.arange(len(rows), device=rows.device)
            self.place = rows.new_full((source.frame.count,), -1).scatter(0, rows, numbers)

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        every = Rows(torch.arange(self.frame.count)) if rows is None else rows
        if self.place is None:
            inside, outside, own = None, None, every
        else:
            # On the host where it knows both.
            where = self.place.device if every.numbers.device.type == "cpu" else every.numbers.device
            numbers = every.on(where)
            place = self.place.to(where)[numbers]
            inside, outside = (place >= 0).nonzero()[:, 0], (place < 0).nonzero()[:, 0]
            own = Rows(place[inside], every.are_chosen)
        value = self.value.prepare(own, self.written, demand) if len(own) else None
        kept: Compute | None = None
        if not self.covers:
            kept = demand.want(self.source, every)
        elif outside is not None and len(outside):
            kept = demand.want(self.source, Rows(numbers[outside], self.are_chosen or every.are_chosen))

        def compute() -> Tensor:
            found = torch.empty(len(every), self.frame.channels, dtype=self.like.dtype, device=self.device)
            if kept is not None:
                if self.covers:
                    found[outside] = kept()
                else:
                    found.copy_(kept())
            if value is not None:
                part = found if inside is None else found[inside]
                channels = self.geometry.channels_of(part)
                channels.copy_(self.written.cut_part(value(), len(own)).reshape(channels.shape))
                if inside is not None:
                    found[inside] = part
            return found if rows is not None else in_shape(found, self)

        return compute


class Repeated(Expression):
    """A value into which a function wrote that nobody proved token-wise: repeated on all of it.

    Args:
        write: called with the view ``geometry`` of the value.
    """

    def __init__(self, source: Expression, geometry: Geometry, write: Callable[[Tensor], Any]) -> None:
        super().__init__(source.like, source.frame, source.device, source.sources)
        self.source = source
        self.geometry = geometry
        self.write = write

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        if rows is not None:
            # So that they are computed in the step whose result this is; the others may be older.
            demand.want(self.source, rows)
        whole = demand.want(self.source, None)

        def compute() -> Tensor:
            value = torch.empty_strided(self.like.shape, self.like.stride(), dtype=self.like.dtype, device=self.device)
            self.write(self.geometry.of(value.copy_(whole())))
            return value if rows is None else self.frame.taken(value, rows.on(value.device))

        return compute


def sources_of(operands: Sequence[Operand]) -> frozenset[Source]:
    return frozenset().union(*(own.sources for own in operands))


def in_shape(rows: Tensor, expression: Expression) -> Tensor:
    """All rows ``[R, C]`` as the value that they are."""
    like, frame = expression.like, expression.frame
    value = torch.empty_strided(like.shape, like.stride(), dtype=rows.dtype, device=rows.device)
    front = value.movedim(frame.dims, tuple(range(len(frame.dims))))
    front.copy_(rows.reshape(front.shape))
    return value


def as_like(value: Tensor, like: Tensor) -> Tensor:
    """``value``, standing in memory as ``like`` does, so that views of one are views of the other."""
    places = zip(value.shape, value.stride(), like.stride())
    if all(size == 1 or own == other for size, own, other in places):
        return value
    return torch.empty_strided(like.shape, like.stride(), dtype=value.dtype, device=value.device).copy_(value)

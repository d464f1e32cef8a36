"""Expressions that are computed of others: by operators, by ``where``, and by writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .demand import Compute, Demand, Rows, Source
from .expressions import Expression, as_like, in_shape
from .geometry import Frame, Geometry
from .operands import Looked, Operand, Seen


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
        depth = 6 + max((own.depth for own in operation.operands), default=0)
        super().__init__(like, frame, device, sources_of(operation.operands), depth)
        self.operation = operation
        self.number = number

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        # Of views of some rows these are asked for, and not the whole that they are views of.
        asked = Rows.first(self.frame.count) if rows is None and self.operation.reads_part else rows
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
        depth = 3 + max(own.depth for own in (mask, one, other))
        super().__init__(like, frame, device, sources_of((one, other)), depth)
        self.mask = mask
        self.sides = (one, other)

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        every = Rows.first(self.frame.count) if rows is None else rows
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
        depth = 3 + max(source.depth, value.depth)
        super().__init__(source.like, source.frame, source.device, source.sources | value.sources, depth)
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
        every = Rows.first(self.frame.count) if rows is None else rows
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
        write: called with the view ``geometry`` of the value, and with what the views ``read`` show.
    """

    def __init__(
        self,
        source: Expression,
        geometry: Geometry,
        write: Callable[[Tensor, list[Tensor]], Any],
        read: Sequence[Looked],
    ) -> None:
        calls = (own.expression.sources for own in read)
        depth = 3 + max([source.depth, *(own.expression.depth for own in read)])
        super().__init__(source.like, source.frame, source.device, source.sources.union(*calls), depth)
        self.source = source
        self.geometry = geometry
        self.write = write
        self.read = read

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute:
        whole = demand.want_all(self.source, rows)
        read = [own.prepare(demand) for own in self.read]

        def compute() -> Tensor:
            value = torch.empty_strided(self.like.shape, self.like.stride(), dtype=self.like.dtype, device=self.device)
            self.write(self.geometry.of(value.copy_(whole())), [own() for own in read])
            return value if rows is None else self.frame.taken(value, rows.on(value.device))

        return compute


def sources_of(operands: Sequence[Operand]) -> frozenset[Source]:
    return frozenset().union(*(own.sources for own in operands))

"""What late tensors hold: how a value is computed, of rows or as a whole.

An expression never changes: a write gives another one. Its rows are asked for by a `Demand`, first of everything that
they are computed of; only then is a step run, and then the rows are computed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .demand import ByToken, Compute, Demand, Rows, Source
from .geometry import Frame, sent, stand_in
from .rows import RowNumbers

MOST = 0.8
"""A slice of more than this share of a sample's rows is read as the whole is."""


class Expression:
    """A value that can be computed row by row.

    Attributes:
        like: a tensor of its shape, dtype and strides without values. frame: its rows. sources: calls whose results
            it is computed of. depth: how many calls of Python inside one another compute it, about.
    """

    def __init__(
        self,
        like: Tensor,
        frame: Frame,
        device: torch.device,
        sources: frozenset[Source] = frozenset(),
        depth: int = 0,
    ) -> None:
        self.like = like
        self.frame = frame
        self.device = device
        self.sources = sources
        self.depth = depth

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
        # Not the demand, which holds this: a cycle would keep the results of a session until garbage is collected.
        results = demand.results

        def compute() -> Tensor:
            value: Tensor | ByToken = results[self.source][self.number]
            if not isinstance(value, Tensor):
                assert rows is not None
                assert self.numbers is not None
                (of,) = self.numbers.among_tokens(rows.on(self.device))
                return value.of(of).reshape(len(of), self.frame.channels)
            return as_like(value, self.like) if rows is None else self.frame.taken(value, rows.on(value.device))

        return compute

    def read(self, tokens: Tensor | None) -> Tensor | ByToken:
        """All of it, or at least the rows of ``tokens``, bool ``[B, N]``; computed as a policy chooses where None."""
        found: Tensor | ByToken = self.source.read(tokens)[self.number]
        return found

    def tokens_of(self, rows: Rows) -> Tensor | None:
        """The tokens that rows are computed of, bool ``[B, N]``; None where they are not known, or all are meant."""
        if self.numbers is None or self.numbers.numbers is None:
            return None
        tokens = self.numbers.of_rows(rows.numbers)
        if not rows.are_chosen and self.numbers.share(tokens) > MOST:
            return None
        return sent(tokens, self.device)


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


def in_shape(rows: Tensor, expression: Expression) -> Tensor:
    """All rows ``[R, C]`` as the value that they are."""
    like = expression.like
    value = torch.empty_strided(like.shape, like.stride(), dtype=rows.dtype, device=rows.device)
    front = expression.frame.rows_first(value)
    front.copy_(rows.reshape(front.shape))
    return value


def as_like(value: Tensor, like: Tensor) -> Tensor:
    """``value``, standing in memory as ``like`` does, so that views of one are views of the other."""
    places = zip(value.shape, value.stride(), like.stride())
    if all(size == 1 or own == other for size, own, other in places):
        return value
    return torch.empty_strided(like.shape, like.stride(), dtype=value.dtype, device=value.device).copy_(value)

"""Which tokens each element of a step's results is computed of, so that what a loop reads says which are wanted."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from .plan import Plan
from .row_numbers import RowNumbering, UnknownValueError, compressed


@dataclass(frozen=True)
class RowOutput:
    """A result of which it is known, element by element, which tokens it is computed of.

    Attributes:
        shape: of the result. samples, tokens: B and N inside of the step.
        numbers: int64 ``[K, ...]``: for each element the K tokens, ``sample N + token``; dimensions of the result along
            which they are the same have size 1. None where they depend on values of the step's arguments.
        dims: the result's samples and rows, where these are the samples and, from ``offset`` on, ``count`` tokens in
            their order; None where they are not.
    """

    shape: tuple[int, ...]
    samples: int
    tokens: int
    numbers: Tensor | None
    dims: tuple[int, int] | None = None
    offset: int = 0
    count: int = 0

    @property
    def rows(self) -> tuple[int, ...]:
        """Sizes of the dimensions along which tokens differ: ``(B, R)`` where the result has rows."""
        return () if self.numbers is None else tuple(size for size in self.numbers.shape[1:] if size > 1)


def find_row_outputs(plan: Plan) -> list[RowOutput | None]:
    """For each result the tokens that its elements are computed of; None where an element is of many, or of none."""
    return [row_output(leaf, plan) if isinstance(leaf, fx.Node) else None for leaf in plan.results]


def row_output(leaf: fx.Node, plan: Plan) -> RowOutput | None:
    value = leaf.meta.get("val")
    if not isinstance(value, Tensor) or not all(isinstance(size, int) for size in value.shape):
        return None
    shape, samples, tokens = tuple(value.shape), plan.samples, plan.axes.length
    try:
        numbers = RowNumbering(plan).of(leaf)
    except UnknownValueError:
        return RowOutput(shape, samples, tokens, None)
    if numbers is None or not len(numbers):
        return None
    numbers = compressed(numbers)
    return in_order(RowOutput(shape, samples, tokens, numbers))


def numbers_with(leaf: fx.Node, plan: Plan, values: Mapping[fx.Node, Any]) -> Tensor | None:
    """The same numbers for one call, whose values of what is before the region are known."""
    numbers = RowNumbering(plan, values).of(leaf)
    return None if numbers is None or not len(numbers) else compressed(numbers)


def in_order(found: RowOutput) -> RowOutput:
    """A result with its samples and rows, where it has them one by one in their order."""
    assert found.numbers is not None
    if not found.numbers.numel():
        # A result without elements, as keys of none of the tokens: nothing is read of it.
        return found
    own, first = found.numbers[0], int(found.numbers.flatten()[0])
    wide = {dim for dim, size in enumerate(own.shape) if size > 1}
    for batch, row in itertools.permutations(range(own.ndim), 2):
        count = found.shape[row]
        has_rows = found.shape[batch] == own.shape[batch] == found.samples and own.shape[row] == count
        if len(found.numbers) == 1 and has_rows and wide <= {batch, row} and first + count <= found.tokens:
            expected = torch.arange(found.samples)[:, None] * found.tokens + first + torch.arange(count)
            if torch.equal(own.movedim((batch, row), (0, 1)).flatten(), expected.flatten()):
                return replace(found, dims=(batch, row), offset=first, count=count)
    return found


def can_wait(plan: Plan, rows: Sequence[RowOutput | None]) -> bool:
    """Whether results can wait until it is known which of their rows are read: all are tensors of known shape.

    A number has no stand-in. ``rows`` are what `find_row_outputs` found.
    """
    fakes = [leaf.meta["val"] for leaf in plan.results if isinstance(leaf, fx.Node)]
    known = [isinstance(own, Tensor) and all(isinstance(size, int) for size in own.shape) for own in fakes]
    return any(rows) and all(known)

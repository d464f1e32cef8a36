"""Which results of a step have rows that are tokens, so that reading rows says which tokens are wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, fx

from ..graph.operands import shape_of
from ..rules.flops import hint
from .plan import Plan
from .region import row_offset


@dataclass(frozen=True)
class RowOutput:
    """A result whose rows are tokens: row i of ``count`` along ``dims[1]`` is token ``i + offset`` of ``dims[0]``."""

    dims: tuple[int, int]
    offset: int
    count: int


def find_row_outputs(plan: Plan) -> list[RowOutput | None]:
    """For each result, which of its dimensions are samples and tokens; None where its rows are no tokens."""
    found: list[RowOutput | None] = []
    axes, region = plan.axes, plan.region
    for leaf in plan.results:
        output = None
        for dim in range(len(shape_of(leaf)) if isinstance(leaf, fx.Node) else 0):
            offset = row_offset(leaf, dim, region, axes)
            batch = [own for own in range(len(shape_of(leaf))) if axes.axes.of(leaf, own) == region.samples_axis]
            if offset is not None and batch:
                output = RowOutput((batch[0], dim), offset, hint(shape_of(leaf)[dim]))
                break
        found.append(output)
    return found


def can_wait(plan: Plan, rows: Sequence[RowOutput | None]) -> bool:
    """Whether results can wait until it is known which of their rows are read: all are tensors of known shape.

    A number has no stand-in. ``rows`` are what `find_row_outputs` found.
    """
    fakes = [leaf.meta["val"] for leaf in plan.results if isinstance(leaf, fx.Node)]
    known = [isinstance(own, Tensor) and all(isinstance(size, int) for size in own.shape) for own in fakes]
    return any(rows) and all(known)

"""Find what makes a wide result of a narrow value, token by token, as the last linear of a language model does."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..graph.operands import operands, same_size, shape_of
from ..graph.reach import descendants
from ..rules.table import dim_map
from .plan import Plan

WIDER = 2
"""A result so many times as wide as what it is computed of is not worth a cache."""


@dataclass(frozen=True)
class Head:
    """How a result is computed of a value that takes less memory, row by row, and of nothing else but weights.

    Attributes:
        value: rows of the region. nodes: what follows, in order; the last of them is the result.
    """

    value: fx.Node
    nodes: tuple[fx.Node, ...]

    @property
    def result(self) -> fx.Node:
        return self.nodes[-1]


def find_head(plan: Plan, read_only: Collection[fx.Node]) -> Head | None:
    """The head of the widest result that has one.

    Before:  z = norm(y);  return linear(z, w)      a row of the result has as many channels as w has rows
    After:   z is cached, and linear(z[rows], w) is computed of those rows that are read

    Args:
        read_only: what is only computed of tokens whose results are read, so that its rows are as old as these.
    """
    if plan.visible is not None or len(plan.axes.streams) > 1:
        # Rows of tokens that were dropped are none of a cache's.
        return None
    results = [leaf for leaf in plan.results if isinstance(leaf, fx.Node)]
    changing = descendants(plan.inputs)
    found = [head_of(leaf, plan, read_only, changing) for leaf in results if results.count(leaf) == 1]
    return max((own for own in found if own is not None), key=lambda own: row_bytes(own.result), default=None)


def head_of(result: fx.Node, plan: Plan, read_only: Collection[fx.Node], changing: Collection[fx.Node]) -> Head | None:
    """The head of one result: behind the narrowest value, the last of these, that it is computed of alone.

    Args:
        changing: what depends on the step's arguments.
    """
    chain = [result]
    while chain[-1] in read_only and len(chain[-1].users) == 1:
        operand = only_rows(chain[-1], plan, changing)
        if operand is None or operand not in read_only:
            break
        chain.append(operand)
    plain = [node for node in chain if node in read_only and plan.region.layouts[node].is_plain]
    if result not in plain:
        return None
    narrowest = min(plain, key=row_bytes)
    if row_bytes(narrowest) * WIDER > row_bytes(result):
        return None
    return Head(narrowest, tuple(reversed(chain[: chain.index(narrowest)])))


def only_rows(node: fx.Node, plan: Plan, changing: Collection[fx.Node]) -> fx.Node | None:
    """The one operand whose rows those of ``node`` are computed of; None where it reads more than that and weights."""
    if node.op != "call_function" or torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
        return None
    found: list[fx.Node] = []
    for index, operand in enumerate(operands(node)):
        if operand is None:
            continue
        if operand in plan.region.rows and plan.region.follows(node, index):
            found.append(operand)
        elif operand in changing or meets_rows(node, index, operand, plan):
            return None
    return found[0] if len(found) == 1 else None


def meets_rows(node: fx.Node, index: int, operand: fx.Node, plan: Plan) -> bool:
    """Whether an operand has a row of its own for each token, as a table of positions."""
    own, dim = dim_map(node), plan.region.rows[node].dim
    sizes: Sequence[Any] = shape_of(operand)
    return any(own.output.get((index, place)) == dim and not same_size(size, 1) for place, size in enumerate(sizes))


def row_bytes(node: fx.Node) -> int:
    """Of a value with as many rows as any other; those of one token are as many parts of it."""
    value = node.meta["val"]
    return math.prod(value.shape) * int(value.element_size())

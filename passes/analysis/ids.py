"""Which integers say which one it is, as a word's id does: of these none is nearly another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ..graph.operands import is_tensor, operands

aten = torch.ops.aten

POSITIONS: dict[Any, int] = {
    aten.embedding.default: 1,
    aten.gather.default: 1,
    aten.index_select.default: 1,
    aten.take.default: 1,
    aten.scatter.src: 1,
    aten.scatter.value: 1,
}
"""Operators that read or write by position, and the operand that holds the positions."""

BY_INDICES = (aten.index.Tensor, aten._unsafe_index.Tensor, aten.index_put.default)
"""Those whose positions are every operand but the first; of a write, the values that are written too."""


def looks_up(reader: fx.Node, ids: fx.Node) -> bool:
    """Whether an operator takes ``ids`` for positions."""
    given = operands(reader)
    if reader.target in BY_INDICES:
        written = 1 if reader.target is aten.index_put.default else 0
        return ids in given[1 : len(given) - written]
    place = POSITIONS.get(reader.target)
    return place is not None and given[place] is ids


def reader_of_ids(node: fx.Node) -> fx.Node | None:
    """The operator for which integers, or others computed of them, are ids; None where they are numbers.

    They are ids where rows of a table are looked up by them, and where nothing but comparisons reads them; a timestep
    of which a sine is taken becomes a floating-point number.
    """
    if not is_integer(node):
        return None
    pending, seen, compared, is_number = [node], {node}, None, False
    while pending:
        own = pending.pop()
        for reader in own.users:
            if looks_up(reader, own):
                return reader
            if not is_tensor(reader):
                continue
            if reader.meta["val"].is_floating_point():
                is_number = True
            elif not is_integer(reader):
                compared = compared or reader
            elif reader not in seen:
                seen.add(reader)
                pending.append(reader)
    return None if is_number else compared


def is_integer(node: fx.Node) -> bool:
    """Whether it is a tensor of whole numbers, and of more than yes and no."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and not value.is_floating_point() and value.dtype is not torch.bool

"""Find where a step drops masked tokens: what is kept, of which value, by which mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_flatten

from ..graph.operands import argument, same_size, shape_of
from ..rules.reshapes import RESHAPES

aten = torch.ops.aten


@dataclass(frozen=True)
class Kept:
    """``kept = view(index(dense, indices), [B, K, ...])``; indices are the columns of ``nonzero(mask)`` or the mask."""

    mask: fx.Node
    dense: fx.Node
    indices: tuple[fx.Node, ...]
    kept: fx.Node


def match_kept(node: fx.Node) -> Kept | None:
    """`Kept` where ``node`` is the last of its operators."""
    if node.target not in RESHAPES or not isinstance(node.args[0], fx.Node):
        return None
    index = node.args[0]
    if index.target is not aten.index.Tensor:
        return None
    arguments: tuple[Any, ...] = index.args
    dense, indices = arguments[:2]
    mask = mask_of(indices)
    if mask is None or not isinstance(dense, fx.Node):
        return None
    shape = shape_of(node)
    same = len(shape) == len(shape_of(dense)) and same_size(shape[0], shape_of(dense)[0])
    if not same or tuple(shape_of(dense)[:2]) != tuple(shape_of(mask)):
        return None
    return Kept(mask, dense, tuple(indices), node)


def mask_of(indices: Any) -> fx.Node | None:
    """The mask ``[B, N]`` that ``indices`` are, or of whose `nonzero` they are the two columns."""
    if not isinstance(indices, (list, tuple)) or any(index is None for index in indices):
        return None
    if len(indices) == 1:
        value = indices[0].meta["val"]
        return indices[0] if value.dtype is torch.bool and value.ndim == 2 else None
    if len(indices) != 2:
        return None
    rows, columns = (column_of_nonzero(index) for index in indices)
    if rows is None or columns is None or rows[0] is not columns[0] or (rows[1], columns[1]) != (0, 1):
        return None
    (mask,) = rows[0].args
    assert isinstance(mask, fx.Node)
    return mask


def same_value(one: Any, other: Any) -> bool:
    """Whether two nodes are the same computation on the same values, as a mask that is made twice.

    A captured step draws no random numbers.
    """
    if not isinstance(one, fx.Node) or not isinstance(other, fx.Node):
        return type(one) is type(other) and bool(one == other)
    if one is other:
        return True
    if one.op != "call_function" or (one.op, one.target) != (other.op, other.target):
        return False
    (left, spec), (right, other_spec) = (tree_flatten((node.args, node.kwargs)) for node in (one, other))
    return spec == other_spec and all(same_value(a, b) for a, b in zip(left, right))


def column_of_nonzero(node: fx.Node) -> tuple[fx.Node, int] | None:
    """The `nonzero` and the column of it that ``node`` is."""
    column = 0
    while node.target is not aten.nonzero.default:
        if node.target is aten.slice.Tensor and argument(node, "dim") == 1:
            column = argument(node, "start") or 0
        elif node.target is aten.select.int and argument(node, "dim") == 1:
            column = argument(node, "index")
        elif node.target not in (aten.squeeze.dims, aten.squeeze.dim):
            return None
        assert isinstance(node.args[0], fx.Node)
        node = node.args[0]
    return node, column

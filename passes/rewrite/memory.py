"""In which order a cache lies in memory, so that who reads all of it makes no copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from ..graph.operands import argument, operands, shape_of


def memory_order(value: fx.Node) -> tuple[int, ...] | None:
    """The dimensions of ``value`` in the order in which all that read it would have them; None for their own.

    An einsum multiplies matrices, one for each index that both operands and the result have, and copies an operand
    whose memory does not begin with these.

    Before:  einsum("bihd,bjhd->bhij", q, k)  of k in memory as b j h d
    After:   the same                         of k in memory as b h j d
    """
    readers = [user for user in value.users if user.target is torch.ops.aten.einsum.default]
    found = {order_for(user, value) for user in readers}
    return found.pop() if len(found) == 1 and len(readers) == len(value.users) else None


def order_for(node: fx.Node, value: fx.Node) -> tuple[int, ...] | None:
    inputs, _, output = argument(node, "equation").replace(" ", "").partition("->")
    names, given = inputs.split(","), operands(node)
    if len(names) != 2 or not all(own.isalpha() for own in (*names, output)) or given[0] is given[1]:
        return None
    own, other = reversed(names) if given[1] is value else names
    shared = [name for name in output if name in own and name in other]
    order = tuple(map(own.index, [*shared, *(name for name in own if name not in shared)]))
    return None if order == (*range(len(shape_of(value))),) else order


def empty_in_order(like: Tensor, shape: Sequence[int], order: Sequence[int] | None, dtype: torch.dtype) -> Tensor:
    """A tensor ``shape`` where ``like`` is, whose memory has its dimensions in this order."""
    if order is None:
        return like.new_empty(shape, dtype=dtype)
    back = [order.index(dim) for dim in range(len(order))]
    return like.new_empty([shape[dim] for dim in order], dtype=dtype).permute(back)

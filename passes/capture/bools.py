"""Arguments that are bool in one call and numbers in another, as the mask of MAR's loop: one capture serves both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..graph.operands import same_sizes
from ..rules.moves import MOVES, REPEATS
from .alike import first_difference, have_same_values
from .arguments import flattened
from .captured import Capture

aten = torch.ops.aten

CARRY = {*MOVES, *REPEATS, aten.cat.default, aten.slice.Tensor, aten.select.int}
"""Operators whose elements are those of their operands, bool where these are."""

COMPARE = {
    *(getattr(aten, name).Scalar for name in ("eq", "ne", "lt", "le", "gt", "ge")),
    *(getattr(aten, name).Tensor for name in ("eq", "ne", "lt", "le", "gt", "ge")),
    *(aten.logical_not.default, aten.logical_and.default, aten.logical_or.default, aten.logical_xor.default),
    aten.nonzero.default,
}

READ = {*CARRY, *COMPARE, aten._to_copy.default, aten.add.Tensor, aten.mul.Tensor, aten.div.Tensor}
"""Operators that read a bool as zero or one, where what they give has the dtype that it has for these numbers."""


def numbers_of_bools(own: Capture, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> frozenset[int]:
    """Which leaves of a call are bool where a captured step has numbers, by number."""
    leaves, spec = flattened(args, dict(kwargs))
    if spec != own.in_spec:
        return frozenset()
    pairs = enumerate(zip(own.inputs, leaves))
    return frozenset(
        number
        for number, (given, leaf) in pairs
        if given.node is not None and is_bool(leaf) and not is_bool(given.value)
    )


def with_numbers(own: Capture, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """``(args, kwargs)`` with zeros and ones in place of these."""
    found = numbers_of_bools(own, args, kwargs)
    if not found:
        return args, kwargs
    leaves, spec = pytree.tree_flatten((args, kwargs))
    for number in found:
        leaves[number] = leaves[number].to(own.inputs[number].value.dtype)
    return pytree.tree_unflatten(leaves, spec)


def serves_bools(own: Capture, other: Capture) -> bool:
    """Whether a step captured of numbers gives for zeros and ones what ``other``, captured of bools, gives for these.

    Both are traces, so that a branch on a dtype shows: they must be node for node the same. What is bool in the one is
    then only moved, or read as zero and one. A cast of it to the dtype of the numbers is nothing in the other, and any
    operator may read what it gives.
    """
    # What a step asks of its arguments, and writes into them, may be another thing for numbers.
    if own.branches is not None or own.writes is not None:
        return False
    return not first_difference(own, other, ReadAsNumbers(), casts_to_numbers(own, other))


def casts_to_numbers(own: Capture, other: Capture) -> dict[fx.Node, fx.Node]:
    """Casts of what is bool in ``other`` to what it is in ``own``, each with what it casts."""
    dtypes = {
        twin.node: given.value.dtype
        for given, twin in zip(own.inputs, other.inputs)
        if twin.node is not None and is_bool(twin.value) and not is_bool(given.value)
    }
    found: dict[fx.Node, fx.Node] = {}
    for node in other.graph_module.graph.nodes:
        read = [dtypes.get(operand) for operand in node.all_input_nodes]
        if node.target in CARRY and is_bool(node.meta.get("val")) and len({*read}) == 1 and read[0] is not None:
            dtypes[node] = read[0]
        elif node.target is aten._to_copy.default and read[0] is not None and node.kwargs == {"dtype": read[0]}:
            (found[node],) = node.all_input_nodes
    return found


class ReadAsNumbers:
    """Whether a node of a graph of numbers and its twin of bools are alike; called in running order."""

    def __init__(self) -> None:
        self.bools: set[fx.Node] = set()
        """Twins that are bool where a node is not."""

    def __call__(self, node: fx.Node, twin: fx.Node) -> bool:
        reads = any(operand in self.bools for operand in twin.all_input_nodes)
        if reads and node.target not in READ:
            return False
        if have_same_values(node, twin):
            return True
        if (node.op == "placeholder" or (reads and node.target in CARRY)) and differ_in_bool_alone(node, twin):
            self.bools.add(twin)
            return True
        return False


def differ_in_bool_alone(node: fx.Node, twin: fx.Node) -> bool:
    value, other = node.meta.get("val"), twin.meta.get("val")
    if not isinstance(value, Tensor) or not isinstance(other, Tensor) or not is_bool(other):
        return False
    return value.device == other.device and same_sizes(value.shape, other.shape)


def is_bool(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype is torch.bool

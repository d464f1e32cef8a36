"""Whether two captures are one: node for node the same operators, constants, shapes and weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..graph.operands import same_size, same_sizes
from ..graph.source import describe
from .captured import Capture
from .structure import is_equal
from .tables import are_equal
from .writes import Writes

Alike = Callable[[fx.Node, fx.Node], bool]
"""Whether the values of two nodes are of one kind; asked in running order."""

Same = Mapping[fx.Node, fx.Node]
"""Nodes of the second graph that need no counterpart in the first, each with the node for whose value theirs stands."""

NOTHING: Same = MappingProxyType({})


def have_same_values(node: fx.Node, twin: fx.Node) -> bool:
    return are_same_values(node.meta.get("val"), twin.meta.get("val"))


def first_difference(own: Capture, other: Capture, are_alike: Alike = have_same_values, same: Same = NOTHING) -> str:
    """Where two captures of a step differ, in words; empty where they do not but for names and layouts of memory."""
    for what in ("in_spec", "out_spec", "autocast", "branches"):
        if getattr(own, what) != getattr(other, what):
            return DIFFERENCES[what]
    node = first_different_node(own.graph_module.graph, other.graph_module.graph, are_alike, same)
    if node is not None:
        return repr(own.weights.get(node, node.name)) if node.op == "placeholder" else describe(node)
    for placeholder, twin in zip(placeholders(own.graph_module), placeholders(other.graph_module), strict=True):
        if own.weights.get(placeholder) != other.weights.get(twin):
            return DIFFERENCES["weights"]
        if not are_equal(own.constants.get(placeholder), other.constants.get(twin)):
            return DIFFERENCES["constants"]
    return "" if writes_alike(own.writes, other.writes) else DIFFERENCES["writes"]


DIFFERENCES = {
    "in_spec": "how its arguments come",
    "out_spec": "how its results come",
    "autocast": "what autocast does",
    "branches": "what it asks of its arguments' values",
    "weights": "which weights it reads",
    "constants": "a tensor that it makes of plain values or keeps",
    "writes": "what it writes into its arguments",
}


def writes_alike(own: Writes | None, other: Writes | None) -> bool:
    if own is None or other is None:
        return own is other
    return (
        own.numbers == other.numbers
        and len(own.constants) == len(other.constants)
        and all(map(are_equal, own.constants, other.constants))
        and first_different_node(own.module.graph, other.module.graph) is None
    )


def placeholders(module: fx.GraphModule) -> list[fx.Node]:
    return module.graph.find_nodes(op="placeholder")


def first_different_node(
    own: fx.Graph, other: fx.Graph, are_alike: Alike = have_same_values, same: Same = NOTHING
) -> fx.Node | None:
    """The first node of ``own`` that is not the one that stands there in ``other``."""
    twins: dict[fx.Node, Any] = {}
    others = [node for node in other.nodes if node not in same]
    for node, twin in zip(own.nodes, others):
        twins[node] = twin
        read = fx.map_arg((twin.args, twin.kwargs), lambda operand: same.get(operand, operand))
        target_counts = node.op == "call_function"
        if (
            node.op != twin.op
            or (target_counts and node.target is not twin.target)
            or not are_same_arguments((node.args, node.kwargs), read, twins)
            or not are_alike(node, twin)
        ):
            return node
    # The longer one goes on after the other's end.
    return None if len(own.nodes) == len(others) else next(reversed(own.nodes))


def are_same_arguments(own: Any, other: Any, twins: dict[fx.Node, Any]) -> bool:
    (left, left_spec), (right, right_spec) = pytree.tree_flatten(own), pytree.tree_flatten(other)
    if left_spec != right_spec:
        return False
    return all(
        twins.get(a) is b if isinstance(a, fx.Node) else type(a) is type(b) and is_equal(a, b)
        for a, b in zip(left, right)
    )


def are_same_values(own: Any, other: Any) -> bool:
    """Whether fakes have the same shape, dtype and device, and numbers are equal."""
    left, right = pytree.tree_leaves(own), pytree.tree_leaves(other)
    return len(left) == len(right) and all(
        same_sizes(a.shape, b.shape) and (a.dtype, a.device) == (b.dtype, b.device)
        if isinstance(a, Tensor) and isinstance(b, Tensor)
        else type(a) is type(b) and (same_size(a, b) if isinstance(a, torch.SymInt) else is_equal(a, b))
        for a, b in zip(left, right)
    )

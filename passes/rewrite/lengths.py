"""Whether rows that a step computed for one number of tokens are rows of the step for another number."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..analysis.axes import TokenAxes
from ..analysis.dimensions import Axis
from ..analysis.plan import Plan
from ..graph.operands import shape_of
from ..graph.reach import ancestors
from ..graph.source import describe
from .parts import Split

SIZES = ("int", "Optional[int]", "List[int]", "Optional[List[int]]")
"""Types of an operator's arguments that are sizes and positions; numbers to compute with are of other types."""


def first_difference_in_rows(own: Plan, own_split: Split, other: Plan, other_split: Split) -> str:
    """Where a step of one length computes a row otherwise than that of another, in words; empty where nowhere.

    ``linear(x [2, 8, 32], w) ; view([2, 8, 4, 8])`` is ``linear(x [2, 12, 32], w) ; view([2, 12, 4, 8])`` on rows, and
    ``mul(x, 8)`` is not ``mul(x, 12)``: node for node the same operators, constants and weights, in which nothing but
    the number of tokens differs. What the prologue gives to them is for those to compare who have the values.
    """
    if own.samples != other.samples:
        return "the number of samples"
    if own.visible is not None or other.visible is not None:
        return "which tokens are kept"
    if own.dense.autocast != other.dense.autocast:
        return "what autocast does"
    if len(own_split.incremental.inputs) != len(other_split.incremental.inputs):
        return "what it reads"
    twins = dict(zip(own_split.incremental.inputs, other_split.incremental.inputs))
    for node, twin in twins.items():
        if own.dense.weights.get(node) != other.dense.weights.get(twin):
            return "which weights it reads"
        if own.axes.dims.get(node) != other.axes.dims.get(twin) or kind_of(node) != kind_of(twin):
            return describe(node)
        if node not in own.dense.weights and sizes_by_name(node, own) != sizes_by_name(twin, other):
            return describe(node)
    nodes, others = computed_on_rows(own, own_split), computed_on_rows(other, other_split)
    for node, twin in zip(nodes, others):
        twins[node] = twin
        if not are_alike(node, twin, twins) or sizes_by_name(node, own) != sizes_by_name(twin, other):
            return describe(node)
    if len(nodes) != len(others) or [twins[own] for own in cached(own_split)] != cached(other_split):
        return "which rows it caches"
    if tuple(twins[own] for own in own_split.gathered) != other_split.gathered:
        return "which values are read row by row"
    return ""


def cached(split: Split) -> list[fx.Node]:
    return [spec.value for spec in split.caches]


def computed_on_rows(plan: Plan, split: Split) -> list[fx.Node]:
    """What the region computes of what it reads, as far as caches depend on it, in running order."""
    needed, region = ancestors(cached(split)), plan.region
    return [
        node
        for node in plan.graph.nodes
        if node in needed and not region.is_before(node) and (node in region.rows or node in region.full)
    ]


def kind_of(node: fx.Node) -> Any:
    """What a value is, but for its sizes."""
    leaves = pytree.tree_leaves(node.meta.get("val"))
    return [(own.dtype, own.device, own.ndim) if isinstance(own, Tensor) else type(own) for own in leaves]


def are_alike(node: fx.Node, twin: fx.Node, twins: dict[fx.Node, fx.Node]) -> bool:
    """Whether two nodes are one operator on the same operands, with the same arguments but for sizes."""
    if node.target is not twin.target or kind_of(node) != kind_of(twin) or node.kwargs.keys() != twin.kwargs.keys():
        return False
    if len(node.args) != len(twin.args):
        return False
    schema = [(own.name, str(own.type)) for own in node.target._schema.arguments] if has_schema(node) else []
    by_name = dict(schema)
    kinds = [*schema[: len(node.args)], *[("", "")] * (len(node.args) - len(schema))]
    pairs = [*zip(kinds, node.args, twin.args)]
    pairs += [((name, by_name.get(name, "")), node.kwargs[name], twin.kwargs[name]) for name in node.kwargs]
    return all(
        are_same(a, b, twins, is_size=kind in SIZES and name not in ("dim", "dims")) for (name, kind), a, b in pairs
    )


def has_schema(node: fx.Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload)


def are_same(own: Any, other: Any, twins: dict[fx.Node, fx.Node], *, is_size: bool) -> bool:
    (left, left_spec), (right, right_spec) = pytree.tree_flatten(own), pytree.tree_flatten(other)
    if left_spec != right_spec:
        return False
    return all(
        twins.get(a) is b if isinstance(a, fx.Node) else type(a) is type(b) and (a == b or (is_size and type(a) is int))
        for a, b in zip(left, right)
    )


def sizes_by_name(node: fx.Node, plan: Plan) -> list[Any]:
    """The sizes of a value, with names for numbers of tokens."""
    axes = plan.axes
    return [
        named_size(axis, size, axes)
        for dim in range(len(shape_of(node)))
        for axis, size in axes.axes.parts(node, dim, axes.token_axes)
    ]


def named_size(axis: Axis, size: Any, axes: TokenAxes) -> Any:
    """A size, or what is counted where it counts tokens: those of a stream, or windows of them."""
    for number, stream in enumerate((axes.joint, *axes.streams)):
        if axis == stream:
            return f"tokens {number}"
        # The first tokens stay where they are if others follow them: more windows, none of them longer.
        if len(axes.axes.factors(stream)) > 1 and axes.axes.factors(stream)[0] == axis:
            return f"windows {number}"
    parts = axes.axes.parts_of.get(axis, ())
    if any(part in axes.token_axes for part in parts):
        return tuple(named_size(part, axes.axes.size(part), axes) for part in parts)
    return size


@dataclass(frozen=True)
class Unwatched:
    """A value of the prologue that the region reads and no step but one of another length may find changed.

    Tables of positions that depend on no input are such values, and masks, which say who reads whom.

    Attributes:
        shape: of the value with tokens in dimensions of their own. tokens: the streams along each of these dimensions,
            none along those of anything else.
        batch_dim: its dimension of samples. row_dim: the one of the rows that read it row by row; None where other rows
            read it too.
    """

    node: fx.Node
    shape: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]
    batch_dim: int | None
    row_dim: int | None


def find_unwatched(plan: Plan, split: Split, watched: Collection[fx.Node]) -> tuple[Unwatched, ...]:
    """What the region reads beside weights and the ``watched`` values."""
    return tuple(
        unwatched(node, plan, is_gathered=node in split.gathered)
        for node in split.incremental.inputs
        if node not in watched and node not in plan.dense.weights
    )


def unwatched(node: fx.Node, plan: Plan, *, is_gathered: bool) -> Unwatched:
    axes, samples = plan.axes, plan.region.samples_axis
    streams = {axes.joint: tuple(range(len(axes.streams)))}
    if len(axes.streams) > 1:
        streams |= {axis: (number,) for number, axis in enumerate(axes.streams)}
    parts = [
        part for dim in range(len(shape_of(node))) for part in axes.axes.parts(node, dim, (samples, *axes.token_axes))
    ]
    tokens = tuple(streams.get(axis, ()) for axis, _ in parts)
    rows = [dim for dim, own in enumerate(tokens) if own]
    batch_dim = next((dim for dim, (axis, _) in enumerate(parts) if axis == samples), None)
    row_dim = rows[0] if is_gathered and len(rows) == 1 else None
    return Unwatched(node, tuple(size for _, size in parts), tokens, batch_dim, row_dim)

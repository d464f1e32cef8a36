"""Whether rows that a step computed for one number of tokens are rows of the step for another number."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..analysis.axes import TokenAxes
from ..analysis.dimensions import Axis
from ..analysis.plan import Plan
from ..graph.operands import shape_of
from ..graph.reach import ancestors, descendants
from ..graph.source import describe
from .parts import Split

SIZES = ("int", "Optional[int]", "List[int]", "Optional[List[int]]")
"""Types of an operator's arguments that are sizes and positions; numbers to compute with are of other types."""


@dataclass(frozen=True)
class Likeness:
    """Whether steps of two lengths compute the same of a row.

    Attributes:
        difference: the first thing that is another, in words; empty where they do.
        twins: by what the region of one reads, what it is for the other.
    """

    difference: str
    twins: dict[fx.Node, fx.Node] = field(repr=False)


def compare_rows(own: Plan, own_split: Split, other: Plan, other_split: Split) -> Likeness:
    """Find out whether a step of one length computes the same of a row as that of another.

    ``linear(x [2, 8, 32], w) ; view([2, 8, 4, 8])`` is ``linear(x [2, 12, 32], w) ; view([2, 12, 4, 8])`` on rows, and
    ``mul(x, 8)`` is not ``mul(x, 12)``: node for node the same operators, constants and weights, in which nothing but
    the number of tokens differs. What the prologue gives to them is for those to compare who have the values.
    """
    comparison = Comparison(own, own_split, other, other_split)
    return Likeness(comparison.difference(), comparison.twins)


class Comparison:
    def __init__(self, own: Plan, own_split: Split, other: Plan, other_split: Split) -> None:
        self.own, self.own_split = own, own_split
        self.other, self.other_split = other, other_split
        self.read = {*other_split.incremental.inputs}
        self.dynamic = descendants([*own.inputs, *other.inputs])
        self.twins: dict[fx.Node, fx.Node] = {}

    def difference(self) -> str:
        own, other = self.own, self.other
        if own.samples != other.samples:
            return "the number of samples"
        if own.visible is not None or other.visible is not None:
            return "which tokens are kept"
        if own.dense.autocast != other.dense.autocast:
            return "what autocast does"
        nodes, others = computed_on_rows(own, self.own_split), computed_on_rows(other, self.other_split)
        for node, twin in zip(nodes, others):
            if not self.are_alike(node, twin):
                return describe(node)
            self.twins[node] = twin
        caches = [self.twins.get(spec.value) for spec in self.own_split.caches]
        if len(nodes) != len(others) or caches != [spec.value for spec in self.other_split.caches]:
            return "which rows it caches"
        if {self.twins[node] for node in self.own_split.gathered} != {*self.other_split.gathered}:
            return "which values are read row by row"
        return ""

    def are_alike(self, node: fx.Node, twin: fx.Node) -> bool:
        """Whether two operators are one on the same operands, with the same arguments but for sizes."""
        if node.target is not twin.target or len(node.args) != len(twin.args) or {*node.kwargs} != {*twin.kwargs}:
            return False
        if kind_of(node) != kind_of(twin) or sizes_by_name(node, self.own) != sizes_by_name(twin, self.other):
            return False
        schema = node.target._schema.arguments if isinstance(node.target, torch._ops.OpOverload) else []
        sizes = {own.name for own in schema if str(own.type) in SIZES and own.name not in ("dim", "dims")}
        names = [own.name for own in schema[: len(node.args)]] or [""] * len(node.args)
        pairs = [
            *zip(names, node.args, twin.args),
            *((name, own, twin.kwargs[name]) for name, own in node.kwargs.items()),
        ]
        return all(self.are_same(a, b, is_size=name in sizes) for name, a, b in pairs)

    def are_same(self, own: Any, other: Any, *, is_size: bool) -> bool:
        (left, left_spec), (right, right_spec) = pytree.tree_flatten(own), pytree.tree_flatten(other)
        return left_spec == right_spec and all(
            self.are_twins(a, b)
            if isinstance(a, fx.Node)
            else type(a) is type(b) and (a == b or (is_size and type(a) is int))
            for a, b in zip(left, right)
        )

    def are_twins(self, node: fx.Node, twin: Any) -> bool:
        """Whether an operand is that of the other; what the regions read is so where they first read it."""
        if node not in self.twins and twin in self.read and twin not in self.twins.values() and self.may_be(node, twin):
            self.twins[node] = twin
        return self.twins.get(node) is twin

    def may_be(self, node: fx.Node, twin: fx.Node) -> bool:
        """Whether what one region reads is of the kind of what the other reads, and the same weight."""
        dims, weights = self.own.axes.dims.get(node), self.own.dense.weights
        return (
            node in self.own_split.incremental.inputs
            and (node in self.dynamic) == (twin in self.dynamic)
            and dims == self.other.axes.dims.get(twin)
            and kind_of(node) == kind_of(twin)
            and sizes_by_name(node, self.own) == sizes_by_name(twin, self.other)
            # Of a table of positions, all may be read for the longest and a slice for others.
            and (bool(dims) or weights.get(node) == self.other.dense.weights.get(twin))
        )


def computed_on_rows(plan: Plan, split: Split) -> list[fx.Node]:
    """What the region computes of what it reads, as far as caches depend on it, in running order."""
    needed, region = ancestors(spec.value for spec in split.caches), plan.region
    return [
        node
        for node in plan.graph.nodes
        if node in needed and not region.is_before(node) and (node in region.rows or node in region.full)
    ]


def kind_of(node: fx.Node) -> Any:
    """What a value is, but for its sizes."""
    leaves = pytree.tree_leaves(node.meta.get("val"))
    return [(own.dtype, own.device, own.ndim) if isinstance(own, Tensor) else type(own) for own in leaves]


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
    """What the region reads beside the ``watched`` values, and weights that are of no length."""
    return tuple(
        unwatched(node, plan, is_gathered=node in split.gathered)
        for node in split.incremental.inputs
        if node not in watched and (node not in plan.dense.weights or plan.axes.dims.get(node))
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

"""Follow rows, the values of single tokens, from operator to operator."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx

from ..graph.operands import Place, argument, operands, same_size, shape_of
from ..rules.dim_map import DimMap
from ..rules.reshapes import RESHAPES
from ..rules.table import dim_map
from .attention import AttentionSite
from .axes import TokenAxes
from .dimensions import Axis, Dimension
from .layout import Layout, find_layout

aten = torch.ops.aten

Links = dict[Place, int]
"""``(operand, dimension)`` whose rows are those of the value, and the dimension that they are there."""


@dataclass(frozen=True)
class Rows:
    """The rows of a value: its dimension that indexes tokens, and the streams that these are of, in order."""

    dim: int
    streams: tuple[int, ...]


@dataclass
class RowTracker:
    """Finds which values consist of rows that come from rows.

    Args:
        samples: the axis of samples. count: how many there are.
    """

    axes: TokenAxes
    sites: Sequence[AttentionSite]
    links: dict[fx.Node, Links]
    samples: Axis
    count: int
    rows: dict[fx.Node, Rows] = field(default_factory=dict)
    layouts: dict[fx.Node, Layout] = field(default_factory=dict)
    """Where samples and tokens stand in values that consist of rows."""

    def __post_init__(self) -> None:
        self.query_dims = find_query_dims(self.sites, self.axes)

    def start(self, node: fx.Node) -> bool:
        """Take the rows of ``node`` to come from no others, if it has samples."""
        (dim,) = self.axes.dims[node]
        return self.note(node, dim, streams_of(node, dim, self.axes))

    def note(self, node: fx.Node, dim: int, streams: tuple[int, ...]) -> bool:
        """Take ``node`` to consist of rows, if it has samples."""
        layout = find_layout(node, dim, self.axes, self.samples, self.count)
        if layout is None:
            return False
        self.rows[node], self.layouts[node] = Rows(dim, streams), layout
        return True

    def follow(self, node: fx.Node) -> bool:
        """Find out whether ``node`` consists of rows of its operands."""
        found = {out for place, out in self.links[node].items() if self.carries(node, place)}
        if len(found) > 1:
            # Rows of queries meet rows of keys.
            found &= {self.query_dims.get(node)}
        if len(found) != 1:
            return False
        (dim,) = found
        streams = self.streams_at(node, dim)
        return streams is not None and self.note(node, dim, streams)

    def carries(self, node: fx.Node, place: Place) -> bool:
        """Whether an operand of ``node`` consists of rows along this dimension."""
        operand = operands(node)[place[0]]
        return operand in self.rows and self.rows[operand].dim == place[1]

    def streams_at(self, node: fx.Node, dim: int) -> tuple[int, ...] | None:
        """The streams of a value's rows along ``dim``; None where it does not consist of them."""
        own, tensors = dim_map(node), operands(node)
        streams: list[tuple[int, ...]] = []
        for index, operand in enumerate(tensors):
            if operand is None:
                continue
            if operand in self.rows and self.links[node].get((index, self.rows[operand].dim)) == dim:
                if not self.keeps_samples(node, index, operand, own):
                    return None
                streams.append(self.rows[operand].streams)
            elif joins_streams(node, dim, self.axes) or not can_be_gathered(node, index, operand, dim, self):
                return None
        if joins_streams(node, dim, self.axes):
            found = tuple(number for part in streams for number in part)
        else:
            found = streams[0]
            if any(other != found for other in streams):
                return None
        return cut_streams(node, dim, found, self.axes)

    def keeps_samples(self, node: fx.Node, index: int, operand: fx.Node, own: DimMap) -> bool:
        """Whether rows of a sample stay rows of that sample, apart from those of others."""
        held = self.axes.axes.dims_with(operand, {self.samples})
        if node.target in RESHAPES or all(same_size(shape_of(operand)[dim], 1) for dim in held):
            return True
        return all(own.is_token_wise(index, dim) for dim in held)


def find_query_dims(sites: Sequence[AttentionSite], axes: TokenAxes) -> dict[fx.Node, int]:
    """For scores and masks of attention, and all values of tokens by tokens around them, the dimension of queries."""
    found: dict[fx.Node, int] = {}
    pending = [(site.product, site.product_query_dim) for site in sites if site.product is not None]
    pending += [(site.mask, len(shape_of(site.mask)) - 2) for site in sites if site.mask is not None]
    while pending:
        node, dim = pending.pop()
        if node in found or len(axes.dims.get(node, ())) < 2:
            continue
        found[node] = dim
        own = dim_map(node)
        for index, operand in enumerate(operands(node) if node.op == "call_function" else []):
            if operand is not None:
                pending += [(operand, d) for (i, d), out in own.output.items() if i == index and out == dim]
        for user in node.users:
            if user.op == "call_function":
                index = operands(user).index(node)
                after = dim_map(user).output.get((index, dim))
                pending += [] if after is None else [(user, after)]
    return found


def row_links(node: fx.Node, axes: TokenAxes) -> Links:
    """Wherever rows stay rows: each row of the value reads one of the operand, and rows can be taken before or after.

    Rows do not become rows of another token axis by it, but for streams that are joined and cut again.
    """
    if node.op != "call_function":
        return {}
    own, tensors = dim_map(node), operands(node)
    if node.target in RESHAPES:
        # Dimensions of tokens keep their order, joined to others or not.
        (operand,) = tensors
        assert operand is not None
        before, after = axes.dims.get(operand, ()), axes.dims.get(node, ())
        return {(0, dim): out for dim, out in zip(before, after)} if len(before) == len(after) else {}
    links = {
        (index, dim): out
        for (index, dim), out in own.output.items()
        if (operand := tensors[index]) is not None
        and own.is_token_wise(index, dim)
        and dim in axes.dims.get(operand, ())
        and out in axes.dims.get(node, ())
    }
    if len(axes.streams) > 1 and node.target is aten.cat.default:
        dim = argument(node, "dim") % len(shape_of(node))
        if joins_streams(node, dim, axes):
            links |= {(index, dim): dim for index in range(len(tensors))}
    elif len(axes.streams) > 1 and node.target is aten.slice.Tensor:
        (operand,) = tensors
        assert operand is not None
        links |= {(0, dim): dim for dim in axes.dims.get(operand, ()) if axes.axes.of(operand, dim) == axes.joint}
    return links


def joins_streams(node: fx.Node, dim: int, axes: TokenAxes) -> bool:
    """Whether ``node`` joins streams of tokens along ``dim``: ``cat([x [B, N, D], y [B, M, D]], 1)``."""
    return (
        len(axes.streams) > 1
        and node.target is aten.cat.default
        and argument(node, "dim") % len(shape_of(node)) == dim
        and axes.axes.of(node, dim) == axes.joint
    )


def cut_streams(node: fx.Node, dim: int, streams: tuple[int, ...], axes: TokenAxes) -> tuple[int, ...] | None:
    """Which of its operand's streams a cut along ``dim`` takes; None where it cuts through one."""
    if node.target is not aten.slice.Tensor or dim_map(node).output.get((0, dim)) == dim:
        return streams
    if argument(node, "step") != 1:
        return None
    start, end = cut_range(node, dim)
    edges = [sum(axes.lengths[number] for number in streams[:i]) for i in range(len(streams) + 1)]
    if start in edges and end in edges and start < end:
        return streams[edges.index(start) : edges.index(end)]
    return None


def cut_range(node: fx.Node, dim: int) -> tuple[int, int]:
    """First and last position that a cut takes of its operand along ``dim``."""
    (operand,) = operands(node)
    assert operand is not None
    size = shape_of(operand)[dim]
    start, end = argument(node, "start") or 0, argument(node, "end")
    end = size if end is None else min(end, size)
    return start % size if start < 0 else start, end + size if end < 0 else end


def can_be_gathered(node: fx.Node, index: int, operand: fx.Node, dim: int, tracker: RowTracker) -> bool:
    """Whether the rows of ``node`` can read theirs of a full operand: by sample where they differ by sample."""
    own = dim_map(node)
    meets = any(out == dim and own.is_token_wise(*place) for place, out in own.output.items() if place[0] == index)
    if not meets or tracker.axes.axes.dims_with(operand, {tracker.samples}):
        return True
    # A table that all samples share is repeated for each of them, which broadcasting must undo.
    missing = len(shape_of(node)) - len(shape_of(operand))
    return all(out == d + missing for (i, d), out in own.output.items() if i == index)


def streams_of(node: fx.Node, dim: int, axes: TokenAxes) -> tuple[int, ...]:
    """The streams that the tokens along a dimension are of, by its axis."""
    (axis,) = (axis for axis, _ in axes.axes.parts(node, dim, axes.token_axes) if axis in axes.token_axes)
    return tuple(range(len(axes.streams))) if axis == axes.joint else (axes.streams.index(axis),)


def rows_reaching(links: dict[fx.Node, Links], targets: Iterable[Dimension]) -> set[fx.Node]:
    """Nodes whose rows become those of ``targets``, these included."""
    seen: set[Dimension] = set()
    pending = list(targets)
    while pending:
        place = pending.pop()
        if place not in seen:
            seen.add(place)
            node, dim = place
            tensors = operands(node) if node.op == "call_function" else []
            pending.extend(
                (operand, own)
                for (index, own), out in links[node].items()
                if out == dim and (operand := tensors[index]) is not None
            )
    return {node for node, _ in seen}

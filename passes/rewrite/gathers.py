"""Which tokens rows are of, and the rows of what is known of all tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import fx

from ... import ops
from ..analysis.axes import TokenAxes
from ..analysis.layout import Layout, find_layout
from ..analysis.region import Region
from ..graph.operands import shape_of

aten = torch.ops.aten


class Gathers:
    """Adds to a rewritten graph what takes rows of full values, each once.

    Args:
        samples: the placeholder of the samples' numbers. active, read: for each stream those of its active positions,
            and of the numbers of those that are read.
        inputs: placeholders of values from outside. read_only: values of which only rows that are read are computed.
    """

    def __init__(
        self,
        graph: fx.Graph,
        axes: TokenAxes,
        region: Region,
        samples: fx.Node,
        active: Sequence[fx.Node],
        read: Sequence[fx.Node],
        inputs: Mapping[fx.Node, fx.Node],
        read_only: frozenset[fx.Node],
    ) -> None:
        self.graph = graph
        self.axes = axes
        self.region = region
        self.samples = samples
        self.active = active
        self.read = read
        self.inputs = inputs
        self.read_only = read_only
        self.memo: dict[Any, fx.Node] = {}
        self.gathered: dict[fx.Node, None] = {}
        """Values from outside of which rows are taken."""

    def gather(self, node: fx.Node, value: fx.Node, layout: Layout, dim: int, reader: fx.Node) -> fx.Node:
        """Of ``value``, which is all of ``node``, the rows along ``dim`` that ``reader`` is computed of."""
        positions = self.positions_of(reader)
        key = ("gather", value, layout, dim, positions)
        if key not in self.memo:
            self.note_gathered(node, value)
            args = (self.cut_dims(value, layout), self.samples, positions, layout.batch_dim, layout.token_dim)
            shape = [-1 if own == dim else size for own, size in enumerate(shape_of(node))]
            self.memo[key] = self.join_dims(self.call(ops.gather_active, args), layout, shape)
        return self.memo[key]

    def gather_for(self, node: fx.Node, operand: fx.Node, value: fx.Node, dim: int) -> fx.Node:
        """Rows of a full operand that meets the rows of ``node`` along its dimension ``dim``."""
        layout = find_layout(operand, dim, self.axes, self.region.samples_axis, self.region.samples)
        if layout is not None:
            return self.gather(operand, value, layout, dim, node)
        return self.gather_shared(node, operand, value)

    def gather_shared(self, node: fx.Node, operand: fx.Node, value: fx.Node) -> fx.Node:
        """Rows of a full operand that all samples share and that broadcasts against the rows of ``node``."""
        layout, rows = self.region.layouts[node], self.region.rows[node]
        positions = self.positions_of(node)
        own = shape_of(operand)
        sizes = [*[1] * (len(layout.joined) - len(own)), *own]
        cut = [part for size, parts in zip(sizes, layout.factors) for part in cut_size(size, parts)]
        # Queries and keys may have other heads and read the same rows of it.
        joined = None if layout.is_plain else layout
        key = ("shared", value, *cut, layout.batch_dim, layout.token_dim, joined, rows.dim, positions)
        if key not in self.memo:
            self.note_gathered(operand, value)
            full = value if cut == list(own) else self.call(aten.reshape.default, (value, cut))
            args = (full, self.samples, positions, layout.batch_dim, layout.token_dim)
            self.memo[key] = self.join_shared(self.call(ops.gather_active, args), layout, rows.dim, sizes)
        return self.memo[key]

    def join_shared(self, value: fx.Node, layout: Layout, row_dim: int, sizes: Sequence[int]) -> fx.Node:
        """Join the dimensions of each sample's ``value``, which broadcasts to rows of this layout.

        Args:
            sizes: of all samples' value, for its dimensions that are not joined.
        """
        if layout.is_plain:
            return value
        # Joined dimensions do not broadcast one by one.
        whole = [part if len(parts) > 1 else -1 for parts in layout.factors for part in parts]
        whole[layout.token_dim] = -1
        expanded = self.call(aten.expand.default, (value, whole))
        starts = accumulate(map(len, layout.factors), initial=0)
        shape = [
            math.prod(parts) if len(parts) > 1 or start == layout.batch_dim else size
            for size, parts, start in zip(sizes, layout.factors, starts)
        ]
        shape[row_dim] = -1
        return self.call(aten.reshape.default, (expanded, shape))

    def note_gathered(self, node: fx.Node, value: fx.Node) -> None:
        if value is self.inputs.get(node):
            self.gathered[node] = None

    def cut_dims(self, value: fx.Node, layout: Layout, *, on_rows: bool = False) -> fx.Node:
        """A value with samples and tokens in dimensions of their own."""
        if layout.is_plain:
            return value
        shape = [-1 if on_rows and dim == layout.token_dim else size for dim, size in enumerate(layout.shape)]
        return self.call(aten.reshape.default, (value, shape))

    def join_dims(self, value: fx.Node, layout: Layout, shape: Sequence[int]) -> fx.Node:
        """The opposite."""
        return value if layout.is_plain else self.call(aten.reshape.default, (value, list(shape)))

    def positions_of(self, node: fx.Node) -> fx.Node:
        """Positions of the rows that ``node`` is computed of, on the axis of all its streams together."""
        streams, read_only = self.region.rows[node].streams, node in self.read_only
        key = ("positions", streams, read_only)
        if key not in self.memo:
            own = [self.active[number] for number in streams]
            if read_only:
                own = [self.call(aten.gather.default, (own, 1, self.read[number])) for own, number in zip(own, streams)]
            lengths = [self.axes.lengths[number] for number in streams]
            self.memo[key] = own[0] if len(own) == 1 else self.call(ops.join_positions, (own, lengths))
        return self.memo[key]

    def numbers_read(self, streams: tuple[int, ...]) -> fx.Node:
        """Numbers of the active tokens of some streams together whose results are computed."""
        key = ("numbers", streams)
        if key not in self.memo:
            read, active = ([own[number] for number in streams] for own in (self.read, self.active))
            self.memo[key] = read[0] if len(read) == 1 else self.call(ops.join_rows, (read, active))
        return self.memo[key]

    def call(self, target: Callable[..., Any], args: tuple[Any, ...], name: str | None = None) -> fx.Node:
        return self.graph.create_node("call_function", target, args, {}, name=name)


def cut_size(size: int, factors: Sequence[int]) -> Sequence[int]:
    """The sizes of one dimension cut as another to which it broadcasts, and which is the product of ``factors``."""
    if len(factors) == 1:
        return [size]
    return [1] * len(factors) if size == 1 else factors

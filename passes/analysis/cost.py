"""How much a step computes, as a function of how many rows it computes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import fx

from ..graph.operands import operands
from ..rules.flops import node_flops
from ..rules.table import dim_map
from .axes import TokenAxes
from .heads import Head
from .region import Region


@dataclass
class RowCost:
    """Floating-point operations for one token of one sample.

    Attributes:
        per_row: whatever the number of other tokens. per_pair: for each key that the token attends to.
    """

    per_row: float = 0.0
    per_pair: float = 0.0

    def of(self, keys: int) -> float:
        return self.per_row + keys * self.per_pair


@dataclass(frozen=True)
class StreamCost:
    """Floating-point operations for one token of one sample.

    Attributes:
        live, read_only, head: of what is computed of each active token, of each whose results are as new, and of each
            for which the head runs.
        tokens: of the stream. keys: that a token attends to, of all streams.
    """

    live: RowCost
    read_only: RowCost
    head: RowCost
    tokens: int
    keys: int

    def of(self, rows: int, read: int, keys: int, results: int | None = None) -> float:
        own = rows * self.live.of(keys) + read * self.read_only.of(keys)
        return own + (read if results is None else results) * self.head.of(keys)


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of a step's contractions (linears and attention; the rest is small beside them).

    Attributes:
        streams: of the region, for each stream of tokens.
        fixed: per step, what runs in full whatever is active: prologue, epilogue and mixing operators.
        samples: B.
    """

    streams: tuple[StreamCost, ...]
    fixed: float
    samples: int

    def incremental(
        self, active: Sequence[int], read: Sequence[int] | None = None, results: int | None = None
    ) -> float:
        """With so many active tokens a sample in each stream, of which so many are read, all when omitted.

        That is rows x weights + rows x tokens.

        Args:
            results: of so many tokens the head's result is computed; of those that are read when omitted.
        """
        counts = zip(self.streams, active, active if read is None else read, strict=True)
        return self.fixed + self.samples * sum(own.of(rows, some, own.keys, results) for own, rows, some in counts)

    def original(self, visible: int | None = None) -> float:
        """Of the original step, which computes all tokens, or the ``visible`` of all streams that it does not drop."""
        # A step that joins streams drops no token of them.
        dropped = 0 if visible is None else sum(own.tokens for own in self.streams) - visible
        rows = 0.0
        for own in self.streams:
            rows += own.of(own.tokens - dropped, own.tokens - dropped, own.keys - dropped)
        return self.fixed + self.samples * rows


def step_cost(
    graph: fx.Graph,
    axes: TokenAxes,
    region: Region,
    read_only: Collection[fx.Node] = frozenset(),
    head: Head | None = None,
) -> Cost:
    """Count the contractions of ``graph``, apart for what runs on active rows, on those read, and in a head."""
    live, read, last = ([RowCost() for _ in axes.streams] for _ in range(3))
    of_head = () if head is None else head.nodes
    fixed = 0.0
    for node in graph.nodes:
        flops = node_flops(node)
        if node not in region.rows or node in region.sources:
            fixed += flops
            continue
        streams = region.rows[node].streams
        rows = region.samples * sum(axes.lengths[number] for number in streams)
        for number in streams:
            cost = (last if node in of_head else read if node in read_only else live)[number]
            if meets_all_tokens(node, axes):
                cost.per_pair += flops / (rows * axes.length)
            else:
                cost.per_row += flops / rows
    costs = (StreamCost(*own, axes.length) for own in zip(live, read, last, axes.lengths))
    return Cost(tuple(costs), fixed, region.samples)


def meets_all_tokens(node: fx.Node, axes: TokenAxes) -> bool:
    """Whether each row of ``node`` reads another token axis: attention, or one of its two products."""
    if len(axes.dims.get(node, ())) > 1:
        return True
    own = dim_map(node)
    return any(
        (index, dim) in own.mixed
        for index, operand in enumerate(operands(node))
        if operand is not None
        for dim in axes.dims.get(operand, ())
    )

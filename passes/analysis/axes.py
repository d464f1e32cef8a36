"""Which axis is the token axis: proven by the rules, never guessed from sizes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from ...errors import UnsupportedModelError
from ..graph.operands import argument, is_tensor, operands, shape_of
from ..graph.reach import descendants
from ..graph.source import describe
from ..rules.flops import node_flops
from .attention import AttentionSite
from .candidates import no_attention_message
from .dimensions import Axes, Axis

aten = torch.ops.aten


@dataclass(frozen=True)
class TokenAxes:
    """The token axis of a graph, which may be several streams of tokens joined in attention.

    Attributes:
        streams: the axis of each stream of tokens; most models have one. joint: the axis of all of them together, in
            the order of ``streams``; the stream itself where there is one.
        lengths: tokens of each stream.
        dims: for every value that has a token axis its dimensions of it, two where tokens meet tokens ``[.., N, N]``.
        axes: which dimensions of all values are one axis.
    """

    streams: tuple[Axis, ...]
    joint: Axis
    lengths: tuple[int, ...]
    dims: dict[fx.Node, tuple[int, ...]]
    axes: Axes

    @property
    def length(self) -> int:
        """All tokens N."""
        return sum(self.lengths)

    def start(self, streams: Sequence[int]) -> int:
        """Position, among the tokens of all streams, of the first token of ``streams``."""
        return sum(self.lengths[: streams[0]])

    def start_of(self, axis: Axis) -> int:
        """Position, among the tokens of all streams, of the first token along an axis of tokens."""
        return 0 if axis == self.joint else self.start((self.streams.index(axis),))

    def joined_parts(self, node: fx.Node, dim: int) -> tuple[tuple[Axis, int, int], ...]:
        """What `cat` joined along a dimension of a value, one part of it tokens: each part's axis, start and length.

        Keys with a learned one before them, or behind those of earlier tokens, are such a value. Empty for any other.
        """
        parts = self.axes.parts_of.get(self.axes.of(node, dim), ())
        if sum(part in self.token_axes for part in parts) != 1:
            return ()
        starts = itertools.accumulate((self.axes.size(part) for part in parts), initial=0)
        return tuple((part, start, self.axes.size(part)) for part, start in zip(parts, starts))

    @property
    def token_axes(self) -> tuple[Axis, ...]:
        return tuple({*self.streams, self.joint})


def find_token_axes(graph: fx.Graph, sites: Sequence[AttentionSite], inputs: Iterable[fx.Node]) -> TokenAxes:
    """The axis of queries around which most is computed.

    An axis whose attention only feeds that of another, as a text encoder's does, is left to the prologue. Where
    attention reads several streams of tokens joined by `cat`, each is a token axis.

    Args:
        inputs: the tensors that a step is called with.

    Raises:
        UnsupportedModelError: there is no attention.
        GraphError: a rule takes dimensions of different sizes for one.
    """
    axes = Axes(graph)
    if not sites:
        raise UnsupportedModelError(no_attention_message(graph, axes, inputs))
    joint = busiest_axis(graph, sites, axes)
    site = next(site for site in sites if query_axis(site, axes) == joint)
    if not isinstance(shape_of(site.q)[site.query_dim], int):
        raise UnsupportedModelError(
            f"the token axis at {describe(site.q)} has a length that depends on values, and no operator that drops "
            "tokens by a mask was recognised before it. marche_fx recognises x[mask.nonzero(as_tuple=True)]."
        )
    streams = find_streams(graph, sites, axes, joint, inputs)
    token_axes = {*streams, joint}
    dims = {node: found for node in graph.nodes if (found := axes.dims_with(node, token_axes))}
    return TokenAxes(streams, joint, tuple(axes.size(stream) for stream in streams), dims, axes)


def query_axis(site: AttentionSite, axes: Axes) -> Axis:
    """The axis of a site's queries; that of its keys where heads that share these are joined, ``[B, H * N, d]``."""
    queries, keys = axes.of(site.q, site.query_dim), axes.of(site.k, site.key_dim)
    channels = axes.of(site.q, len(shape_of(site.q)) - 1)
    # Other keys, such as sinks, may be joined to those of tokens.
    for tokens in axes.with_parts(keys):
        parts = [axis for axis, _ in axes.parts(site.q, site.query_dim, {tokens})]
        if tokens in parts and all(axis == tokens or axes.share_product(axis, channels) for axis in parts):
            return tokens
    return queries


def busiest_axis(graph: fx.Graph, sites: Sequence[AttentionSite], axes: Axes) -> Axis:
    """The axis of queries whose values take most FLOPs, among those that do not merely feed another.

    Queries of one stream of tokens count for the axis of all of them.
    """
    queried = {query_axis(site, axes) for site in sites}
    whole = {part: axis for axis in queried for part in axes.parts_of.get(axis, ())}
    nodes_of: dict[Axis, list[fx.Node]] = {}
    for site in sites:
        axis = query_axis(site, axes)
        nodes_of.setdefault(whole.get(axis, axis), []).append(site.node)
    after = {axis: descendants(nodes) for axis, nodes in nodes_of.items()}

    def feeds(axis: Axis, other: Axis) -> bool:
        return any(node in after[axis] for node in nodes_of[other])

    results = next(node for node in graph.nodes if node.op == "output").all_input_nodes
    final = [
        axis
        for axis in nodes_of
        if not any(
            feeds(axis, other) and not feeds(other, axis) and any(axes.dims_with(leaf, {other}) for leaf in results)
            for other in nodes_of
        )
    ]
    flops = dict.fromkeys(final or nodes_of, 0.0)
    for node in graph.nodes:
        for axis in flops:
            if axes.dims_with(node, {axis}):
                flops[axis] += node_flops(node)
    return max(flops, key=lambda axis: flops[axis])


def find_streams(
    graph: fx.Graph, sites: Sequence[AttentionSite], axes: Axes, joint: Axis, inputs: Iterable[fx.Node]
) -> tuple[Axis, ...]:
    """The axes that `cat` joins again and again to the one that attention runs on: ``cat([x [B, N, D], y [B, M, D]])``.

    A `cat` before the first attention only makes the tokens; those that follow attention join streams, if tokens enter
    along each of the axes that they join.
    """
    attended = descendants(site.node for site in sites if query_axis(site, axes) == joint)
    dynamic = descendants(inputs)
    together = descendants(node for node in graph.nodes if axes.dims_with(node, {joint}))
    entering = {
        axes.of(node, dim) for node in dynamic - together for dim in range(len(shape_of(node))) if is_tensor(node)
    }
    found: set[tuple[Axis, ...]] = set()
    for node in graph.find_nodes(op="call_function", target=aten.cat.default):
        dim = argument(node, "dim") % len(shape_of(node))
        parts = [operand for operand in operands(node) if operand is not None]
        if axes.of(node, dim) == joint and node in attended:
            if not all(part in dynamic and axes.of(part, dim) in entering for part in parts):
                return (joint,)
            found.add(tuple(axes.of(part, dim) for part in parts))
    streams = found.pop() if len(found) == 1 else (joint,)
    return streams if len(set(streams)) == len(streams) else (joint,)

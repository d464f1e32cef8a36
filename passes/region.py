"""The region: the part of a step that can be recomputed for some of its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from ..errors import GraphError, UnsupportedModelError
from .attention import AttentionSite
from .axes import Dimension, TokenAxes
from .reach import ancestors, descendants
from .rules import argument, dim_map, operands, shape_of
from .source import describe

aten = torch.ops.aten


@dataclass(frozen=True)
class Region:
    """Where each node of a step is computed.

    Attributes:
        active_dim: for nodes computed on active rows, the dimension of the rows.
        batch_dim: for values that have one, their dimension of samples.
        sources: nodes whose rows do not come from other rows: the region's entries, and results of operators that ran
            in full inside it.
        full: nodes inside the region that mix tokens without being attention: they run on all rows.
        inside: everything that depends on the region's entries.
        always: values that the runtime reads although the region does not.
    """

    active_dim: dict[fx.Node, int]
    batch_dim: dict[fx.Node, int]
    sources: frozenset[fx.Node]
    full: frozenset[fx.Node]
    inside: frozenset[fx.Node]
    always: tuple[fx.Node, ...]

    def is_before(self, node: fx.Node) -> bool:
        """Whether ``node`` does not depend on the region; entries do not."""
        return node not in self.inside

    @property
    def entries(self) -> tuple[fx.Node, ...]:
        """What enters the region with rows of its own, in no particular order."""
        return tuple(node for node in self.sources if node not in self.full)


def find_region(
    graph: fx.Graph,
    axes: TokenAxes,
    sites: Sequence[AttentionSite],
    inputs: Iterable[fx.Node],
    visible: fx.Node | None = None,
) -> Region:
    """Follow rows from where tokens enter to where they stop being rows.

    A node is computed on rows if one of its operands is, and the operator is token-wise along it. A region starts at
    values with the token axis whose rows come from no other rows, which depend on an input of the step, and which
    reach an operand of attention; masks do not reach one and stay outside.
    """
    order = list(graph.nodes)
    links = {node: row_links(node, axes) for node in order}
    dynamic = descendants(inputs)
    mixed = [operand for site in sites for operand in (site.q, site.k, site.v)]
    towards_attention = rows_reaching(links, [(node, dim) for node in mixed for dim in axes.dims.get(node, ())])
    key_side = key_products(sites)

    active: dict[fx.Node, int] = {}
    queries: dict[fx.Node, int] = {}
    """Scores of written-out attention and what is computed from them, with the dimension of queries."""
    sources: set[fx.Node] = set()
    for node in order:
        found = {out for index, operand, dim, out in links[node] if active.get(operand) == dim and operand in active}
        if len(found) > 1 and node in key_side:
            found = {key_side[node]}
        elif len(found) > 1:
            # A mask made of the same tokens meets the scores of queries: its rows are keys.
            found = {out for _, operand, dim, out in links[node] if queries.get(operand) == dim}
        if len(found) == 1:
            active[node] = found.pop()
            if key_side.get(node) == active[node] or any(
                queries.get(operand) == dim for _, operand, dim, _ in links[node]
            ):
                queries[node] = active[node]
        elif not found and not links[node] and node in dynamic and node in towards_attention:
            dims = axes.dims[node]
            if len(dims) > 1:
                raise GraphError(f"{describe(node)} has the token axis in dimensions {dims}; which are rows is unclear")
            active[node] = dims[0]
            sources.add(node)
    inside = descendants(sources)
    entries = {node for node in sources if not any(operand in inside for operand in node.all_input_nodes)}
    computed_in_full = {node for node in inside if node not in active or (node in sources and node not in entries)}
    rows = [node for node in active if node not in entries]
    needed = ancestors(operand for node in rows for operand in node.all_input_nodes)
    full = frozenset(node for node in computed_in_full if node in needed and node.op == "call_function")
    batch = batch_dims(active, axes, entries)
    return Region(
        active, batch, frozenset(sources), full, frozenset(inside - entries), () if visible is None else (visible,)
    )


def row_links(node: fx.Node, axes: TokenAxes) -> list[tuple[int, fx.Node, int, int]]:
    """``(operand number, operand, its dimension, output dimension)`` wherever token rows stay rows."""
    if node.op != "call_function":
        return []
    own, tensors = dim_map(node), operands(node)
    return [
        (index, operand, dim, out)
        for (index, dim), out in own.output.items()
        if (operand := tensors[index]) is not None
        and own.is_token_wise(index, dim)
        and dim in axes.dims.get(operand, ())
        and out in axes.dims.get(node, ())
    ]


def key_products(sites: Sequence[AttentionSite]) -> dict[fx.Node, int]:
    """For the score products of written-out attention, the dimension that indexes queries."""
    return {site.product: site.product_query_dim for site in sites if site.product is not None}


def rows_reaching(
    links: dict[fx.Node, list[tuple[int, fx.Node, int, int]]], targets: Iterable[Dimension]
) -> set[fx.Node]:
    """Nodes whose rows become those of ``targets``, these included."""
    seen: set[Dimension] = set()
    pending = list(targets)
    while pending:
        place = pending.pop()
        if place not in seen:
            seen.add(place)
            node, dim = place
            pending.extend((operand, own) for _, operand, own, out in links[node] if out == dim)
    return {node for node, _ in seen}


def batch_dims(active: dict[fx.Node, int], axes: TokenAxes, entries: Iterable[fx.Node]) -> dict[fx.Node, int]:
    """The dimension of samples of each value in the region: the axis that is first where tokens enter.

    Raises:
        UnsupportedModelError: tokens enter in the first dimension.
    """
    classes: set[Dimension] = set()
    for entry in entries:
        if active[entry] == 0:
            raise UnsupportedModelError(
                f"tokens are the first dimension of {describe(entry)} {tuple(shape_of(entry))}; marche_fx expects "
                "samples first, [B, N, ...]."
            )
        classes.add(axes.class_of[entry, 0])
    found = {}
    for node in active:
        for dim in range(len(shape_of(node))):
            if axes.class_of[node, dim] in classes:
                found[node] = dim
                break
    return found


def row_offset(node: fx.Node, dim: int, region: Region) -> int | None:
    """Position on the token axis of the first row of ``node`` along ``dim``; None where its rows are not tokens."""
    if node in region.active_dim:
        return 0 if region.active_dim[node] == dim else None
    if node.op != "call_function":
        return None
    own, offsets = dim_map(node), set()
    for index, operand in enumerate(operands(node)):
        if operand is None or (region.is_before(operand) and operand not in region.active_dim):
            continue
        sources = [d for d in range(len(shape_of(operand))) if own.output.get((index, d)) == dim]
        if sources and own.is_token_wise(index, sources[0]):
            offsets.add(row_offset(operand, sources[0], region))
        elif node.target is aten.slice.Tensor and argument(node, "dim") == dim and argument(node, "step") == 1:
            offset = row_offset(operand, dim, region)
            start = argument(node, "start") or 0
            offsets.add(None if offset is None else offset + (start if start >= 0 else start + shape_of(operand)[dim]))
        else:
            offsets.add(None)
    return offsets.pop() if len(offsets) == 1 else None

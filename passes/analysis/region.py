"""The region: the part of a step that can be recomputed for some of its tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from ...errors import ArgumentError, UnsupportedModelError
from ..graph.operands import is_tensor, operands, same_size, shape_of
from ..graph.reach import ancestors, descendants
from ..graph.source import describe
from ..rules.moves import MOVES, MOVES_TOKENS, REPEATS
from ..rules.table import dim_map
from .attention import AttentionSite
from .axes import TokenAxes
from .dimensions import Axis
from .layout import Layout
from .rows import Links, Rows, RowTracker, row_links, rows_reaching

aten = torch.ops.aten


@dataclass(frozen=True)
class Region:
    """Where each node of a step is computed.

    Attributes:
        rows: for nodes computed on active rows, the dimension of the rows and the streams that they are tokens of.
        links: which dimensions of an operand its rows come from.
        layouts: where samples and tokens stand in these values.
        samples_axis: the axis of samples. samples: its size B.
        sources: nodes whose rows do not come from other rows: the region's entries, and results of operators that ran
            in full inside it.
        full: nodes inside the region that mix tokens without being attention: they run on all rows.
        inside: everything that depends on the region's entries.
        always: values that the runtime reads although the region does not.
    """

    rows: dict[fx.Node, Rows]
    links: dict[fx.Node, Links]
    layouts: dict[fx.Node, Layout]
    samples_axis: Axis
    samples: int
    sources: frozenset[fx.Node]
    full: frozenset[fx.Node]
    inside: frozenset[fx.Node]
    always: tuple[fx.Node, ...]

    def is_before(self, node: fx.Node) -> bool:
        """Whether ``node`` does not depend on the region; entries do not."""
        return node not in self.inside

    def follows(self, node: fx.Node, index: int) -> bool:
        """Whether each row of ``node``, which consists of rows, reads that row alone of an operand."""
        operand = operands(node)[index]
        if operand not in self.rows:
            return False
        return self.links[node].get((index, self.rows[operand].dim)) == self.rows[node].dim

    def unrepeated(self, node: fx.Node) -> fx.Node:
        """What ``node`` repeats, as keys for every head of queries; itself if it repeats nothing."""
        while self.repeats_rows(node):
            operand = operands(node)[0]
            assert operand is not None
            node = operand
        return node

    def repeats_rows(self, node: fx.Node) -> bool:
        """Whether ``node`` only repeats rows that it reads, as for every head, so that a cache before it is smaller."""
        (operand, *others) = operands(node) if node.op == "call_function" else [None]
        if operand is None or others or operand not in self.rows or node in self.sources:
            return False
        if node.target in REPEATS:
            return not all(same_size(a, b) for a, b in zip(shape_of(operand)[::-1], shape_of(node)[::-1]))
        return node.target in MOVES and self.repeats_rows(operand)

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
    exact_sites: int = 0,
) -> Region:
    """Follow rows from where tokens enter to where they stop being rows.

    A node is computed on rows if one of its operands is, and the operator is token-wise along it. A region starts at
    values with the token axis whose rows come from no other rows, which depend on an input of the step, and which
    reach an operand of attention; masks do not reach one and stay outside. Operators that mix tokens before the first
    attention stay outside with everything they read, and so do the first ``exact_sites`` attentions.

    Raises:
        UnsupportedModelError: the token axis comes first where samples are expected.
        ArgumentError: there are not more sites than ``exact_sites``.
    """
    finder = RegionFinder(graph, axes, sites, inputs)
    # Which tokens are visible must be known before any is chosen.
    known = set() if visible is None else ancestors([visible])
    tracker, sources, prologue = finder.follow_rows(finder.up_to(exact_sites) | known)
    inside, entries = interior(sources, prologue)
    return Region(
        rows=tracker.rows,
        links=finder.links,
        layouts=tracker.layouts,
        samples_axis=finder.samples,
        samples=finder.count,
        sources=frozenset(sources),
        full=frozenset(nodes_in_full(tracker.rows, sources, prologue)),
        inside=frozenset(inside - entries),
        always=() if visible is None else (visible,),
    )


class RegionFinder:
    def __init__(
        self, graph: fx.Graph, axes: TokenAxes, sites: Sequence[AttentionSite], inputs: Iterable[fx.Node]
    ) -> None:
        self.order = list(graph.nodes)
        self.axes = axes
        self.sites = sites
        self.links = {node: row_links(node, axes) for node in self.order}
        self.dynamic = descendants(inputs)
        mixed = [operand for site in sites for operand in (site.q, site.k, site.v)]
        self.towards_attention = rows_reaching(
            self.links, [(node, dim) for node in mixed for dim in axes.dims.get(node, ())]
        )
        self.attended = descendants(site.product or site.node for site in sites if axes.dims.get(site.q, ()))
        self.samples, self.count = self.find_samples()

    def up_to(self, count: int) -> set[fx.Node]:
        """The first ``count`` attentions among tokens and everything that they read."""
        if not count:
            return set()
        among = [site for site in self.sites if self.axes.dims.get(site.q, ())]
        if count >= len(among):
            raise ArgumentError(f"exact_sites must leave one of {len(among)} attention sites to recompute, got {count}")
        return ancestors(site.node for site in among[:count])

    def follow_rows(self, prologue: set[fx.Node]) -> tuple[RowTracker, set[fx.Node], set[fx.Node]]:
        """What consists of rows, what of it has rows that come from no others, and what must be computed before.

        Before is ``prologue``, and what mixes tokens before the first attention with everything that it reads.
        """
        while True:
            tracker, sources = self.follow_rows_after(prologue)
            mixers = {
                node
                for node in nodes_in_full(tracker.rows, sources, prologue)
                if node not in self.attended and node.target not in MOVES_TOKENS
            }
            if not mixers:
                return tracker, sources, prologue
            prologue = prologue | ancestors(mixers)

    def follow_rows_after(self, prologue: set[fx.Node]) -> tuple[RowTracker, set[fx.Node]]:
        tracker = RowTracker(self.axes, self.sites, self.links, self.samples, self.count)
        sources: set[fx.Node] = set()
        for node in self.order:
            follows = node not in prologue and tracker.follow(node)
            is_read = node not in prologue or any(user not in prologue for user in node.users)
            if not follows and is_read and self.may_start(node) and tracker.start(node):
                sources.add(node)
        return tracker, sources

    def may_start(self, node: fx.Node) -> bool:
        """Whether tokens may enter here. Values of tokens by tokens are masks or scores, not tokens."""
        return (
            node in self.dynamic
            and node in self.towards_attention
            and len(self.axes.dims.get(node, ())) == 1
            and is_tensor(node)
        )

    def find_samples(self) -> tuple[Axis, int]:
        """The axis of samples, and how many there are: one that tokens enter with and that reaches q, k and v."""
        starts = [node for node in self.order if self.may_start(node)]
        if not starts:
            site = next(site for site in self.sites if self.axes.dims.get(site.q, ()))
            raise UnsupportedModelError(
                f"the tokens that meet in {describe(site.node)} depend on no input of the step, so none changes them."
            )
        axes = self.axes.axes
        reached = [self.independent_axes(site) for site in self.sites if self.axes.dims.get(site.q, ())]
        for start in starts:
            for dim in range(len(shape_of(start))):
                axis, count = axes.of(start, dim), int(shape_of(start)[dim])
                # One sample is told from no other.
                reaches = count == 1 or any({*axes.factors(axis)} <= held for held in reached)
                if dim not in self.axes.dims[start] and reaches:
                    return axis, count
        for start in starts:
            if self.axes.dims[start] != (0,):
                return axes.of(start, 0), int(shape_of(start)[0])
        raise UnsupportedModelError(
            f"tokens are the first dimension of {describe(starts[0])} {tuple(shape_of(starts[0]))}, and no other "
            "dimension of it reaches attention; marche_fx expects samples there, [B, N, ...] or [N, B, ...]."
        )

    def independent_axes(self, site: AttentionSite) -> set[Axis]:
        """The axes along which an attention is many attentions: of samples and of heads."""

        def factors(node: fx.Node, but: tuple[int, ...] = ()) -> set[Axis]:
            dims = [dim for dim in range(len(shape_of(node))) if dim not in but]
            return {factor for dim in dims for factor in self.axes.axes.factors(self.axes.axes.of(node, dim))}

        scored = site.product or site.node
        index = operands(scored).index(site.q)
        kept = {dim for operand, dim in dim_map(scored).output if operand == index}
        summed = factors(site.q, tuple(kept))
        return (factors(site.q) & factors(site.k) & factors(site.v) & factors(site.node)) - summed


def interior(sources: set[fx.Node], prologue: set[fx.Node]) -> tuple[set[fx.Node], set[fx.Node]]:
    """What depends on sources and is not computed before them, and those sources that depend on no other."""
    inside = descendants(sources) - prologue
    entries = {
        node for node in sources if node in prologue or not any(operand in inside for operand in node.all_input_nodes)
    }
    return inside, entries


def nodes_in_full(rows: dict[fx.Node, Rows], sources: set[fx.Node], prologue: set[fx.Node]) -> set[fx.Node]:
    """Operators that depend on rows without consisting of rows, and that rows are computed from."""
    inside, entries = interior(sources, prologue)
    in_full = {node for node in inside if node not in rows or (node in sources and node not in entries)}
    needed = ancestors(operand for node in rows if node not in entries for operand in node.all_input_nodes)
    return {node for node in in_full if node in needed and node.op == "call_function"}

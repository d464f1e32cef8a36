"""Recompute active tokens only, and read the others from caches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import fx

from ... import ops
from ..analysis.attention import FUSED, AttentionSite
from ..analysis.axes import TokenAxes
from ..analysis.groups import find_shared_keys
from ..analysis.heads import Head
from ..analysis.liveness import find_read_only
from ..analysis.region import Region
from ..analysis.rows import Rows
from ..graph.operands import argument, operands, shape_of
from ..rules.table import dim_map
from .copied import copied
from .cut import Part, cut_part
from .gathers import Gathers
from .head import cut_head
from .memory import empty_in_order, memory_order
from .parts import CacheSpec, Split

aten = torch.ops.aten


def split(
    graph_module: fx.GraphModule,
    axes: TokenAxes,
    region: Region,
    sites: Sequence[AttentionSite],
    *,
    skip_unread: bool = False,
    head: Head | None = None,
    cache_dtype: torch.dtype | None = None,
) -> Split:
    """Recompute active tokens only; read the others from caches.

    Before:  k = linear(x, w_k);  v = linear(x, w_v);  y = sdpa(q, k, v)
    After:   rows = gather_active(x, samples, active)
             k = linear(rows, w_k);  v = linear(rows, w_v)
             y = sdpa(q, update_cache(k_cache, k, samples, active), update_cache(v_cache, v, samples, active))

    Every edge of the region's graph is one of four: rows to rows as they are; rows to an operator that mixes tokens,
    through a cache; a full value to rows, gathered on the axis that meets them; a full value read as it is.

    Args:
        skip_unread: leave out, of active tokens that nobody reads, what no other token reads either.
        head: of a result that is not cached; what it is computed of is.
        cache_dtype: what cached rows are rounded to that other tokens read; results, and rows of this step, are not.
    """
    read_only = find_read_only(graph_module.graph, region) if skip_unread else frozenset()
    return Splitter(graph_module, axes, region, sites, read_only, head, cache_dtype).run()


class Splitter:
    def __init__(
        self,
        graph_module: fx.GraphModule,
        axes: TokenAxes,
        region: Region,
        sites: Sequence[AttentionSite],
        read_only: frozenset[fx.Node],
        head: Head | None = None,
        cache_dtype: torch.dtype | None = None,
    ) -> None:
        self.source = graph_module
        self.axes = axes
        self.region = region
        self.read_only = read_only
        self.head = head
        self.of_head = frozenset() if head is None else frozenset(head.nodes)
        self.cache_dtype = cache_dtype
        self.after = self.nodes_after(list(graph_module.graph.nodes))
        self.shared_keys = {site.node: found for site in sites if (found := find_shared_keys(site)) is not None}
        self.attention_operands = {region.unrepeated(own) for site in sites for own in (site.k, site.v)}
        self.graph = fx.Graph()
        self.samples = self.graph.placeholder("samples")
        numbers = [""] if len(axes.streams) == 1 else [f"_{i}" for i in range(len(axes.streams))]
        self.active, self.read, self.asked, self.queried = (
            tuple(self.graph.placeholder(f"{name}{number}") for number in numbers)
            for name in ("active", "read", "rows", "queried")
        )
        self.inputs: dict[fx.Node, fx.Node] = {}
        self.gathers = Gathers(self.graph, axes, region, self.samples, self.active, self.read, self.inputs, read_only)
        self.call = self.gathers.call
        self.rows: dict[fx.Node, fx.Node] = {}
        self.values: dict[fx.Node, fx.Node] = {}
        """Full values computed inside the region."""
        self.caches: dict[fx.Node, CacheSpec] = {}
        self.cached: dict[fx.Node, fx.Node] = {}
        """Their placeholders."""
        self.updated: dict[fx.Node, fx.Node] = {}
        self.memo: dict[Any, fx.Node] = {}

    def run(self) -> Split:
        region = self.region
        nodes = list(self.source.graph.nodes)
        self.declare_inputs(nodes)
        for node in nodes:
            if node in region.full:
                self.values[node] = self.copy(node, self.full_operand)
            if node in region.sources:
                self.rows[node] = self.gathers.gather(
                    node, self.value_of(node), region.layouts[node], region.rows[node].dim, node
                )
            elif node in region.rows and node not in self.of_head:
                self.rows[node] = self.copy_rows(node)
        for node in nodes:
            if node in self.rows and self.is_result(node):
                self.update(node, "result")
        self.graph.output(())
        self.drop_unused_inputs()
        return self.parts(nodes)

    def parts(self, nodes: list[fx.Node]) -> Split:
        incremental = Part(fx.GraphModule(self.source, self.graph), tuple(self.inputs), ())
        output = next(node for node in nodes if node.op == "output")
        given: Any = output.args[0]
        results = [None if leaf in self.of_head else leaf for leaf in given]
        leaves = tuple(leaf for leaf in results if isinstance(leaf, fx.Node))
        layouts = {node: spec.layout for node, spec in self.caches.items()}
        epilogue = cut_part(
            self.source, [node for node in nodes if node in self.after], leaves, results_of=results, layouts=layouts
        )
        head = None if self.head is None else cut_head(self.source, self.head, self.region)
        wanted = {*incremental.inputs, *epilogue.inputs, *self.region.always}
        wanted |= set() if head is None else {*head.part.inputs}
        before = [node for node in nodes if node.op == "call_function" and self.region.is_before(node)]
        prologue = cut_part(self.source, before, [node for node in before if node in wanted])
        return Split(
            prologue=prologue,
            incremental=incremental,
            epilogue=epilogue,
            caches=tuple(self.caches.values()),
            gathered=tuple(self.gathers.gathered),
            copies=self.rows,
            active=self.active,
            read=self.read,
            rows=self.asked,
            queried=self.queried,
            read_only=self.read_only,
            head=head,
        )

    def nodes_after(self, nodes: list[fx.Node]) -> set[fx.Node]:
        """What is computed from the region but not in it, or is in full both in it and after it."""
        region = self.region
        after = {
            node for node in nodes if not region.is_before(node) and node not in region.rows and node not in region.full
        }
        for node in reversed(nodes):
            if node in region.full and node not in region.rows and any(user in after for user in node.users):
                after.add(node)
        return after

    def is_result(self, node: fx.Node) -> bool:
        """Whether the epilogue, or the head of a wide result, reads ``node``."""
        return any(user in self.after or user in self.of_head for user in node.users)

    def declare_inputs(self, nodes: Iterable[fx.Node]) -> None:
        """A placeholder for every value from outside that the region reads."""
        inside = {*self.region.rows, *self.region.full} - (self.region.sources - self.region.full) - self.of_head
        for node in nodes:
            reads = node in self.region.sources or any(user in inside for user in node.users)
            if self.region.is_before(node) and reads:
                self.inputs[node] = self.graph.placeholder(node.name)
                self.inputs[node].meta = dict(node.meta)

    def drop_unused_inputs(self) -> None:
        self.graph.eliminate_dead_code(
            is_impure_node=lambda node: node.target is ops.update_cache or node.op != "call_function"
        )
        for node, placeholder in list(self.inputs.items()):
            if not placeholder.users:
                self.graph.erase_node(placeholder)
                del self.inputs[node]
                self.gathers.gathered.pop(node, None)

    # -------------------------------------------------------------------------------------------------- edges

    def copy_rows(self, node: fx.Node) -> fx.Node:
        """The operator on active rows."""
        own, rows = dim_map(node), self.region.rows[node]

        def operand_rows(index: int, operand: fx.Node | None) -> fx.Node | None:
            if operand is None:
                return None
            if self.region.follows(node, index):
                return self.rows_for(node, operand)
            value = self.full(operand) if operand in self.rows else self.value_of(operand)
            for dim in range(len(shape_of(operand))):
                if own.output.get((index, dim)) == rows.dim and own.is_token_wise(index, dim):
                    return self.gathers.gather_for(node, operand, value, dim)
            return value

        if self.is_cut(node):
            return self.take_streams(node)
        copied = self.copy(node, operand_rows, rows=rows)
        if node in self.shared_keys:
            self.share_keys(copied, node)
        if node.target in FUSED and argument(node, "is_causal"):
            self.mask_causally(copied, node)
        return copied

    def rows_for(self, node: fx.Node, operand: fx.Node) -> fx.Node:
        """The rows of an operand that ``node`` is computed of."""
        rows = self.rows[operand]
        if node not in self.read_only or operand in self.read_only:
            return rows
        key = ("read", operand)
        if key not in self.memo:
            layout, own = self.region.layouts[operand], self.region.rows[operand]
            cut = self.gathers.cut_dims(rows, layout, on_rows=True)
            args = (cut, self.samples, self.gathers.numbers_read(own.streams), layout.batch_dim, layout.token_dim)
            shape = [-1 if dim == own.dim else size for dim, size in enumerate(shape_of(operand))]
            self.memo[key] = self.gathers.join_dims(self.call(ops.gather_active, args), layout, shape)
        return self.memo[key]

    def is_cut(self, node: fx.Node) -> bool:
        """Whether ``node`` cuts the axis of tokens."""
        return node.target is aten.slice.Tensor and (0, self.region.rows[node].dim) not in dim_map(node).output

    def take_streams(self, node: fx.Node) -> fx.Node:
        """The rows of some of the streams that an operand has rows of."""
        (operand,) = operands(node)
        assert operand is not None
        rows, taken = self.region.rows[operand], self.region.rows[node].streams
        skipped = rows.streams[: rows.streams.index(taken[0])]
        positions = self.read if node in self.read_only else self.active
        counted = [[positions[number] for number in streams] for streams in (skipped, taken)]
        return self.call(ops.take_rows, (self.rows_for(node, operand), rows.dim, *counted), name=node.name)

    def share_keys(self, attention: fx.Node, original: fx.Node) -> None:
        """Let heads read the keys that they share as these are, and not a copy for each.

        Before:  y = sdpa(q, reshape(expand(k, ...)), reshape(expand(v, ...)))
        After:   y = sdpa(q, squeeze(k), squeeze(v), enable_gqa=True)
        """
        shared, (q, _, _, *others) = self.shared_keys[original], attention.args
        given, *_ = operands(original)
        queries = None if given is None else self.region.layouts.get(given)
        if queries is None or not queries.is_plain or shared.k not in self.rows or shared.v not in self.rows:
            return
        with self.graph.inserting_before(attention):
            k, v = (self.call(aten.squeeze.dims, (self.full(own), [-3])) for own in (shared.k, shared.v))
        attention.args = (q, k, v, *others)
        attention.kwargs = {**attention.kwargs, "enable_gqa": True}

    def mask_causally(self, attention: fx.Node, original: fx.Node) -> None:
        """Replace the causal flag, which counts rows, by a mask that knows the positions of the active rows."""
        with self.graph.inserting_before(attention):
            positions = self.gathers.positions_of(original)
        options = {name: value for name, value in attention.kwargs.items() if name in ("scale", "enable_gqa")}
        attention.args = (*attention.args[:3], self.causal_mask(attention, original, positions))
        attention.kwargs = options

    def causal_mask(self, attention: fx.Node, original: fx.Node, positions: fx.Node) -> fx.Node:
        """Which keys the rows of an attention may see; one for all layers, before the first where it can be."""
        layout, rank = self.region.layouts[original], len(shape_of(original))
        _, keys, *_ = operands(original)
        assert keys is not None
        sizes = [*[1] * (rank - 1), int(shape_of(keys)[-2])]
        key = ("causal", positions, layout, *sizes)
        if key not in self.memo:
            # Of keys it takes only how many there are, which a cache tells before it is written.
            own = self.cached.get(self.region.unrepeated(keys))
            comes_first = own is not None and positions.op == "placeholder"
            first = next(node for node in self.graph.nodes if node.op == "call_function")
            given = (own if comes_first else attention.args[1], positions)
            with self.graph.inserting_before(first if comes_first else attention):
                if all(layout.joined):
                    mask = self.call(ops.causal_mask, (*given, len(layout.shape), layout.batch_dim))
                    self.memo[key] = self.gathers.join_shared(mask, layout, rank - 2, sizes)
                else:
                    # One sample, for which there is no dimension.
                    self.memo[key] = self.call(ops.causal_mask, (*given, rank, 0))
        return self.memo[key]

    def full_operand(self, _: int, operand: fx.Node | None) -> fx.Node | None:
        """An operand of an operator that runs in full."""
        if operand is None:
            return None
        return self.full(operand) if operand in self.rows else self.value_of(operand)

    def value_of(self, node: fx.Node) -> fx.Node:
        """All of a value that is not computed on rows, or is before it is gathered."""
        return self.values[node] if node in self.values else self.inputs[node]

    def full(self, node: fx.Node) -> fx.Node:
        """All rows of a value of which the region computes the active ones."""
        if self.region.repeats_rows(node):
            # Cached before it is copied for every head, and repeated on the full value.
            if ("full", node) not in self.memo:
                self.memo["full", node] = self.copy(node, self.full_operand)
            return self.memo["full", node]
        return self.update(node, "attention" if node in self.attention_operands else "operand")

    def update(self, node: fx.Node, role: str) -> fx.Node:
        """The cache of a value with its active rows written, in the value's own shape."""
        if node not in self.updated:
            layout = self.region.layouts[node]
            order = memory_order(node) if layout.is_plain else None
            spec = CacheSpec(f"{node.name}_cache", node, role, layout, self.rounded_to(node), order)
            self.caches[node] = spec
            last = [*self.graph.find_nodes(op="placeholder")][-1]
            with self.graph.inserting_after(last):
                cache = self.cached[node] = self.graph.placeholder(f"{node.name}_cache")
            cache.meta = {"val": empty_in_order(node.meta["val"], layout.shape, order, spec.dtype)}
            rows = self.gathers.cut_dims(self.rows[node], layout, on_rows=True)
            args = (cache, rows, self.samples, self.gathers.positions_of(node), layout.batch_dim, layout.token_dim)
            every = self.call(ops.update_cache, args)
            if spec.rounded_to is not None:
                every = self.call(ops.beside_rounded, args)
            self.updated[node] = self.gathers.join_dims(every, layout, shape_of(node))
        return self.updated[node]

    def rounded_to(self, node: fx.Node) -> torch.dtype | None:
        """What cached rows of ``node`` are rounded to; None where they stay as they are."""
        own = node.meta["val"].dtype
        is_finer = own.is_floating_point and self.cache_dtype is not None and self.cache_dtype.itemsize < own.itemsize
        return self.cache_dtype if is_finer and not self.is_result(node) else None

    # --------------------------------------------------------------------------------------------------- copying

    def copy(
        self, node: fx.Node, operand: Callable[[int, fx.Node | None], fx.Node | None], rows: Rows | None = None
    ) -> fx.Node:
        return copied(self.graph, node, operand, rows)

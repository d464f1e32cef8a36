"""Recompute active tokens only, and read the others from caches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from .. import ops
from ..errors import GraphError, UnsupportedModelError
from .attention import FUSED, AttentionSite
from .pack import RESHAPES
from .region import Region
from .rules import argument, dim_map, map_operands, operands, same_size, shape_of
from .source import describe

aten = torch.ops.aten


@dataclass(frozen=True)
class CacheSpec:
    """One tensor that a session owns: the rows of ``value`` for all N tokens.

    Attributes:
        role: ``"attention"`` for an operand that attention mixes, ``"operand"`` for one that another operator mixes,
            ``"result"`` for what the epilogue reads.
    """

    name: str
    value: fx.Node
    role: str
    batch_dim: int
    token_dim: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(shape_of(self.value))


@dataclass(frozen=True)
class Part:
    """A graph cut out of another; its inputs and outputs are named by the nodes of that other graph."""

    module: fx.GraphModule
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]


@dataclass(frozen=True)
class Split:
    """A step in three parts.

    Attributes:
        prologue: from the step's inputs to what the region reads; all tokens, every step.
        incremental: called with ``(samples, active, queried, *inputs, *caches)``; writes the caches and returns the
            values of its hooks.
        epilogue: from caches and prologue values to the step's results.
        gathered: values of the prologue of which the region reads active rows; whole: those it reads entirely.
        copies: node of the captured graph to its counterpart in the incremental graph.
        queried: placeholder of the incremental graph, bool ``[B, A]``, which active tokens will be read.
    """

    prologue: Part
    incremental: Part
    epilogue: Part
    caches: tuple[CacheSpec, ...]
    gathered: tuple[fx.Node, ...]
    whole: tuple[fx.Node, ...]
    copies: dict[fx.Node, fx.Node] = field(repr=False)
    queried: fx.Node


LEADING = ("samples", "active", "queried")
"""The first inputs of every incremental graph."""


def split(graph_module: fx.GraphModule, region: Region, sites: Sequence[AttentionSite]) -> Split:
    """Recompute active tokens only; read the others from caches.

    Before:  k = linear(x, w_k);  v = linear(x, w_v);  y = sdpa(q, k, v)
    After:   rows = gather_active(x, samples, active)
             k = linear(rows, w_k);  v = linear(rows, w_v)
             y = sdpa(q, update_cache(k_cache, k, samples, active), update_cache(v_cache, v, samples, active))

    Every edge of the region's graph is one of four: rows to rows as they are; rows to an operator that mixes tokens,
    through a cache; a full value to rows, gathered on the axis that meets them; a full value read as it is.
    """
    return Splitter(graph_module, region, sites).run()


class Splitter:
    def __init__(self, graph_module: fx.GraphModule, region: Region, sites: Sequence[AttentionSite]) -> None:
        self.source = graph_module
        self.region = region
        self.attention_operands = {operand for site in sites for operand in (site.k, site.v)}
        self.graph = fx.Graph()
        self.leading = tuple(self.graph.placeholder(name) for name in LEADING)
        self.inputs: dict[fx.Node, fx.Node] = {}
        self.rows: dict[fx.Node, fx.Node] = {}
        self.values: dict[fx.Node, fx.Node] = {}
        """Full values computed inside the region."""
        self.caches: dict[fx.Node, CacheSpec] = {}
        self.updated: dict[fx.Node, fx.Node] = {}
        self.gathers: dict[Any, fx.Node] = {}
        self.gathered: dict[fx.Node, None] = {}
        self.whole: dict[fx.Node, None] = {}

    def run(self) -> Split:
        region = self.region
        nodes = list(self.source.graph.nodes)
        self.declare_inputs(nodes)
        for node in nodes:
            if node in region.full:
                self.values[node] = self.copy(node, self.full_operand(node))
            if node in region.sources:
                self.rows[node] = self.gather(node, region.batch_dim[node], region.active_dim[node])
            elif node in region.active_dim:
                self.rows[node] = self.copy_rows(node)
        results = [node for node in nodes if node in region.active_dim and any(self.is_after(u) for u in node.users)]
        for node in results:
            self.update(node, "result")
        self.graph.output(())
        self.drop_unused_inputs()
        module = fx.GraphModule(self.source, self.graph)
        incremental = Part(module, tuple(self.inputs), ())
        before = [node for node in nodes if node.op != "output" and region.is_before(node)]
        after = [node for node in nodes if node.op != "output" and self.is_after(node)]
        output = next(node for node in nodes if node.op == "output")
        leaves = tuple(leaf for leaf in output.args[0] if isinstance(leaf, fx.Node))
        epilogue = cut(self.source, after, leaves, results_of=output.args[0])
        wanted = {*incremental.inputs, *epilogue.inputs, *region.always}
        computed = tuple(node for node in before if node in wanted and node.op == "call_function")
        prologue = cut(self.source, before, computed)
        return Split(
            prologue,
            incremental,
            epilogue,
            tuple(self.caches.values()),
            tuple(self.gathered),
            tuple(self.whole),
            self.rows,
            self.leading[2],
        )

    def is_after(self, node: fx.Node) -> bool:
        """Whether ``node`` is computed from the region but not in it."""
        return not self.region.is_before(node) and node not in self.region.active_dim and node not in self.region.full

    def declare_inputs(self, nodes: Iterable[fx.Node]) -> None:
        """A placeholder for every value from outside that the region reads."""
        inside = {*self.region.active_dim, *self.region.full} - (self.region.sources - self.region.full)
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

    # -------------------------------------------------------------------------------------------------- edges

    def copy_rows(self, node: fx.Node) -> fx.Node:
        """The operator on active rows."""
        own, active = dim_map(node), self.region.active_dim[node]

        def operand_rows(index: int, operand: fx.Node | None) -> fx.Node | None:
            if operand is None:
                return None
            if operand in self.rows:
                dim = self.region.active_dim[operand]
                if own.output.get((index, dim)) == active and own.is_token_wise(index, dim):
                    return self.rows[operand]
                return self.full(operand)
            for dim in range(len(shape_of(operand))):
                if own.output.get((index, dim)) == active and own.is_token_wise(index, dim):
                    return self.gather_for(node, index, operand, dim)
            return self.read_whole(operand)

        copied = self.copy(node, operand_rows)
        if node.target in FUSED and argument(node, "is_causal"):
            self.mask_causally(copied, shape_of(node))
        return copied

    def mask_causally(self, attention: fx.Node, shape: tuple[Any, ...]) -> None:
        """Replace the causal flag, which counts rows, by a mask that knows the positions of the active rows."""
        q, k, v = attention.args[:3]
        assert isinstance(k, fx.Node)
        with self.graph.inserting_before(attention):
            mask = self.graph.call_function(ops.causal_mask, (k, self.leading[1], len(shape)))
        options = {name: value for name, value in attention.kwargs.items() if name in ("scale", "enable_gqa")}
        attention.args, attention.kwargs = (q, k, v, mask), options

    def full_operand(self, node: fx.Node) -> Callable[[int, fx.Node | None], fx.Node | None]:
        """Operands of an operator that runs in full."""

        def operand_in_full(index: int, operand: fx.Node | None) -> fx.Node | None:
            if operand is None:
                return None
            return self.full(operand) if operand in self.rows else self.read_whole(operand)

        return operand_in_full

    def read_whole(self, operand: fx.Node) -> fx.Node:
        if operand in self.values:
            return self.values[operand]
        self.whole[operand] = None
        return self.inputs[operand]

    def full(self, node: fx.Node) -> fx.Node:
        """All rows of a value of which the region computes the active ones."""
        if node not in self.region.batch_dim or is_expansion(node):
            # A fold of samples and heads, or a copy for every head: cached before it, repeated on the full value.
            if node.target in (*RESHAPES, *EXPANSIONS, aten.permute.default, aten.transpose.int):
                return self.copy(node, self.full_operand(node))
            raise UnsupportedModelError(
                f"{describe(node)} has no dimension of samples (shape {tuple(shape_of(node))}), so its rows cannot be "
                "cached per sample. Keep samples in a dimension of their own where attention reads keys and values."
            )
        return self.update(node, "attention" if node in self.attention_operands else "operand")

    def update(self, node: fx.Node, role: str) -> fx.Node:
        if node not in self.updated:
            region = self.region
            if node not in region.batch_dim:
                raise UnsupportedModelError(f"{describe(node)} is a result without a dimension of samples")
            spec = CacheSpec(f"{node.name}_cache", node, role, region.batch_dim[node], region.active_dim[node])
            last = [*self.graph.find_nodes(op="placeholder")][-1]
            with self.graph.inserting_after(last):
                cache = self.graph.placeholder(spec.name)
                cache.meta = {"val": node.meta["val"]}
            samples, active, _ = self.leading
            args = (cache, self.rows[node], samples, active, spec.batch_dim, spec.token_dim)
            self.caches[node] = spec
            self.updated[node] = self.graph.call_function(ops.update_cache, args)
        return self.updated[node]

    def gather(self, value: fx.Node, batch_dim: int, token_dim: int) -> fx.Node:
        key = (value, batch_dim, token_dim)
        if key not in self.gathers:
            full = self.values.get(value)
            if full is None:
                full = self.inputs[value]
                self.gathered[value] = None
            samples, active, _ = self.leading
            args = (full, samples, active, batch_dim, token_dim)
            self.gathers[key] = self.graph.call_function(ops.gather_active, args)
        return self.gathers[key]

    def gather_for(self, node: fx.Node, index: int, operand: fx.Node, dim: int) -> fx.Node:
        """Rows of a full operand that broadcasts against rows: samples get a dimension where it has none."""
        own, batch = dim_map(node), self.region.batch_dim.get(node)
        found = [d for d in range(len(shape_of(operand))) if batch is not None and own.output.get((index, d)) == batch]
        if found:
            return self.gather(operand, found[0], dim)
        missing = len(shape_of(node)) - len(shape_of(operand))
        if batch is None or own.output[index, dim] != dim + missing:
            raise GraphError(
                f"{describe(node)} reads {describe(operand)}, which all samples share, in a way that cannot be "
                "gathered for each sample"
            )
        value = operand
        for _ in range(missing):
            value = self.unsqueezed(value)
        return self.gather(value, batch, dim + missing)

    def unsqueezed(self, operand: fx.Node) -> fx.Node:
        """``operand[None]`` as a value of the region."""
        key = ("unsqueeze", operand)
        if key not in self.gathers:
            if operand not in self.values:
                self.gathered[operand] = None
            full = self.values.get(operand) or self.inputs[operand]
            node = self.graph.call_function(aten.unsqueeze.default, (full, 0))
            self.gathers[key] = node
            self.values[node] = node
        return self.gathers[key]

    def copy(self, node: fx.Node, operand: Callable[[int, fx.Node | None], fx.Node | None]) -> fx.Node:
        """``node`` on other operands; a baked size of the token axis becomes -1, what the rows have."""
        args, kwargs = map_operands(node, operand)
        target = node.target
        on_rows = node in self.region.active_dim and node not in self.values
        if target in RESHAPES:
            # The layout of gathered rows is not the original's, so a view may need a copy.
            target = aten.reshape.default
        if on_rows and node.target in (*RESHAPES, aten.expand.default):
            # An inferred size would be a second -1.
            inferred = node.target in RESHAPES
            shape = shape_of(node)
            sizes = [shape[dim] if given == -1 and inferred else given for dim, given in enumerate(args[1])]
            sizes[self.region.active_dim[node]] = -1
            args = (args[0], sizes, *args[2:])
        copied = self.graph.create_node("call_function", target, args, kwargs, name=node.name)
        copied.meta = {name: value for name, value in node.meta.items() if name != "val"}
        return copied


EXPANSIONS = (aten.expand.default, aten.clone.default)


def is_expansion(node: fx.Node) -> bool:
    """Whether ``node`` repeats what it reads, so that a cache before it is smaller."""
    if node.target is not aten.expand.default:
        return False
    (operand,) = operands(node)
    assert operand is not None
    return not all(same_size(a, b) for a, b in zip(shape_of(operand)[::-1], shape_of(node)[::-1]))


def cut(
    source: fx.GraphModule, nodes: Sequence[fx.Node], outputs: Sequence[fx.Node], *, results_of: Any = None
) -> Part:
    """The graph of ``nodes`` as a module of its own; what they read from outside becomes its inputs."""
    graph = fx.Graph()
    inside = {node for node in nodes if node.op == "call_function"}
    read = {operand for node in inside for operand in node.all_input_nodes} | set(outputs)
    inputs = tuple(node for node in source.graph.nodes if node in read and node not in inside)
    copies: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in nodes:
        if node in inside:
            copies[node] = graph.node_copy(node, copies.__getitem__)
            if node.target in RESHAPES:
                # Caches keep the layout they were made with, which a view of the original's need not fit.
                copies[node].target = aten.reshape.default
    result = tuple(outputs) if results_of is None else results_of
    graph.output(fx.map_arg(tuple(result), copies.__getitem__))
    graph.eliminate_dead_code()
    return Part(fx.GraphModule(source, graph), inputs, tuple(outputs))

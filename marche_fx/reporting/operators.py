"""A captured step operator by operator: where each runs after the rewrite, on how many rows, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from ..passes.analysis.plan import Plan
from ..passes.graph.operands import shape_of
from ..passes.graph.source import module_path, module_types, source_line
from ..passes.rewrite.parts import Split
from ..passes.rules.flops import hint, node_flops
from .site_report import byte_count, why_in_full

STATES = {
    "active": "active tokens only",
    "read": "active tokens that are read",
    "full": "all tokens, whatever is active",
    "before": "all tokens, when what it reads changes",
    "after": "all tokens, of cached rows",
}
"""Where an operator runs after the rewrite."""


@dataclass(frozen=True)
class CachedRows:
    """A cache that an operator's rows are written into: ``role`` as in `CacheSpec`."""

    role: str
    shape: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Operator:
    """One operator of a captured step.

    Attributes:
        name: of its value. operator: in full, ``aten.linear.default``. module: path; line: of the source.
        reads: names of values. shape, dtype: of its value as captured; empty where it is no tensor.
        state: one of `STATES`. reason: why it runs on all tokens inside the region; empty elsewhere.
        active_shape: of its value after the rewrite: A stands for active tokens, R for those of them that are read, and
            a stream's number for those of one of several.
        cache: that its rows are written into. gathered: whether active rows are taken of it, where rows begin.
        flops: of all tokens. active_flops: of the report's share of active tokens.
        rows, active_rows: of all samples, the same; 0 where its value has no rows.
    """

    name: str
    operator: str
    module: str
    line: str
    reads: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    state: str
    reason: str
    active_shape: tuple[str, ...]
    cache: CachedRows | None
    gathered: bool
    flops: float
    active_flops: float
    rows: int
    active_rows: int


@dataclass(frozen=True)
class StepGraph:
    """A captured step and what became of it.

    Attributes:
        plan, split: as the passes made them.
        active: so many tokens of each stream are taken to be active.
    """

    name: str
    plan: Plan
    split: Split
    active: tuple[int, ...]

    def operators(self) -> list[Operator]:
        caches = {spec.value: spec for spec in self.split.caches}
        of_head = set() if self.split.head is None else {*self.split.head.head.nodes}
        found = []
        for node in self.nodes:
            spec = caches.get(node)
            cache = None if spec is None else CachedRows(spec.role, spec.shape, byte_count([spec]))
            state = self.state(node, of_head)
            rows, active_rows = self.rows(node)
            share = active_rows / rows if rows else 1.0
            flops = node_flops(node)
            value = node.meta.get("val")
            found.append(
                Operator(
                    name=node.name,
                    operator=full_name(node),
                    module=module_path(node),
                    line=source_line(node),
                    reads=tuple(operand.name for operand in node.all_input_nodes),
                    shape=tuple(hint(size) for size in shape_of(node)) if isinstance(value, Tensor) else (),
                    dtype=str(value.dtype).removeprefix("torch.") if isinstance(value, Tensor) else "",
                    state=state,
                    reason=why_in_full(node, self.plan) if state == "full" else "",
                    active_shape=self.active_shape(node, state),
                    cache=cache,
                    gathered=node in self.split.gathered,
                    flops=flops,
                    active_flops=flops * share,
                    rows=rows,
                    active_rows=active_rows,
                )
            )
        return found

    @property
    def nodes(self) -> list[fx.Node]:
        """The operators of the captured step, in running order."""
        return [node for node in self.plan.graph.nodes if node.op == "call_function"]

    def module_types(self) -> dict[str, str]:
        """The class of every module that computes something, by its path."""
        return {path: kind for node in self.nodes for path, kind in module_types(node).items()}

    def state(self, node: fx.Node, of_head: set[fx.Node]) -> str:
        region = self.plan.region
        if node in region.full:
            return "full"
        if region.is_before(node):
            return "before"
        if node in region.rows:
            return "read" if node in self.split.read_only or node in of_head else "active"
        return "after"

    def is_on_rows(self, node: fx.Node) -> bool:
        """Whether ``node`` is computed on active rows; rows that begin at it are taken of all of it."""
        return node in self.plan.region.rows and node not in self.plan.region.sources

    def rows(self, node: fx.Node) -> tuple[int, int]:
        """Rows of all samples that an operator computes, before and after the rewrite."""
        if node not in self.plan.region.rows:
            return 0, 0
        streams, lengths = self.plan.region.rows[node].streams, self.plan.axes.lengths
        rows = self.plan.samples * sum(lengths[number] for number in streams)
        active = self.plan.samples * sum(self.active[number] for number in streams)
        return rows, active if self.is_on_rows(node) else rows

    def active_shape(self, node: fx.Node, state: str) -> tuple[str, ...]:
        if not isinstance(node.meta.get("val"), Tensor):
            return ()
        sizes = [str(hint(size)) for size in shape_of(node)]
        if self.is_on_rows(node):
            rows, lengths = self.plan.region.rows[node], self.plan.axes.lengths
            letter = "R" if state == "read" else "A"
            names = [letter if len(lengths) == 1 else f"{letter}{number}" for number in rows.streams]
            tokens = sum(lengths[number] for number in rows.streams)
            joined = hint(shape_of(node)[rows.dim]) // tokens
            sizes[rows.dim] = "+".join(names) if joined == 1 else f"{joined}({'+'.join(names)})"
        return tuple(sizes)


def full_name(node: fx.Node) -> str:
    """``aten.linear.default``, or the name of a function that is no operator of PyTorch."""
    name = str(node.target)
    return name if "." in name and not name.startswith("<") else getattr(node.target, "__name__", name)


def graph_dict(graph: StepGraph) -> dict[str, Any]:
    """A captured step, and what became of it, as plain values."""
    return {
        "name": graph.name,
        "active": list(graph.active),
        "operators": [operator_dict(own) for own in graph.operators()],
        "caches": [
            {"name": own.name, "role": own.role, "shape": list(own.shape), "value": own.value.name}
            for own in graph.split.caches
        ],
        "rewritten": {
            part: [node_dict(node) for node in getattr(graph.split, part).module.graph.nodes]
            for part in ("prologue", "incremental", "epilogue")
        },
    }


def operator_dict(own: Operator) -> Mapping[str, Any]:
    found = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(own).items()}
    if own.cache is not None:
        found["cache"] = {**vars(own.cache), "shape": list(own.cache.shape)}
    return found


def node_dict(node: fx.Node) -> dict[str, Any]:
    """A node of a rewritten part."""
    operator = full_name(node) if node.op == "call_function" else node.op
    return {"name": node.name, "operator": operator, "reads": [own.name for own in node.all_input_nodes]}


def total_flops(operators: Sequence[Operator], *, active: bool = False) -> float:
    return math.fsum(own.active_flops if active else own.flops for own in operators)

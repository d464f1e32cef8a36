"""Cut the prologue into stages by the inputs that they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import fx

from ..graph.reach import ancestors
from .cut import Part, cut_part


@dataclass(frozen=True)
class Stage:
    """A part of the prologue that need not run again while what it reads stays as it is.

    Attributes:
        reads: inputs of the step, and weights, that it depends on, also through other stages.
    """

    part: Part
    reads: tuple[fx.Node, ...]


def cut_stages(
    source: fx.GraphModule, nodes: Sequence[fx.Node], wanted: Sequence[fx.Node], inputs: Iterable[fx.Node]
) -> tuple[Stage, ...]:
    """The nodes that ``wanted`` are computed from, those that depend on the same inputs together, in running order.

    Before:  k = linear(context, w_k);  t = silu(time);  scale = linear(t, w)
    After:   {context}: k = linear(context, w_k)
             {time}: t = silu(time);  scale = linear(t, w)
    """
    needed = ancestors(wanted)
    changing = set(inputs)
    reads: dict[fx.Node, frozenset[fx.Node]] = {}
    stages: dict[frozenset[fx.Node], list[fx.Node]] = {}
    for node in nodes:
        if node in needed:
            operands = node.all_input_nodes
            reads[node] = frozenset().union(*(reads.get(operand, {operand}) for operand in operands))
            stages.setdefault(reads[node] & changing, []).append(node)
    found = []
    for depends in sorted(stages, key=len):
        own = stages[depends]
        outputs = [node for node in own if node in wanted or any(u in needed and u not in own for u in node.users)]
        part = cut_part(source, own, outputs)
        found.append(Stage(part, tuple(frozenset().union(*(reads[node] for node in own)))))
    return tuple(found)

"""Cut a part out of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ..analysis.layout import Layout
from ..graph.operands import shape_of
from ..rules.reshapes import RESHAPES

aten = torch.ops.aten


@dataclass(frozen=True)
class Part:
    """A graph cut out of another; its inputs and outputs are named by the nodes of that other graph."""

    module: fx.GraphModule
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]


def cut_part(
    source: fx.GraphModule,
    nodes: Sequence[fx.Node],
    outputs: Sequence[fx.Node],
    *,
    results_of: Any = None,
    layouts: Mapping[fx.Node, Layout] | None = None,
) -> Part:
    """The graph of ``nodes`` as a module of its own; what they read from outside becomes its inputs.

    Args:
        results_of: what the module returns instead of ``outputs``: these, nested or beside plain values.
        layouts: of inputs that come with samples and tokens in dimensions of their own, as caches hold them.
    """
    graph = fx.Graph()
    inside = {node for node in nodes if node.op == "call_function"}
    read = {operand for node in inside for operand in node.all_input_nodes} | set(outputs)
    inputs = tuple(node for node in source.graph.nodes if node in read and node not in inside)
    copies: dict[fx.Node, fx.Node] = {}
    for node in inputs:
        copies[node] = graph.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in inputs:
        if layouts and node in layouts and not layouts[node].is_plain:
            copies[node] = graph.call_function(aten.reshape.default, (copies[node], list(shape_of(node))))
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

"""The head of a wide result as a module of its own."""

from __future__ import annotations

from torch import fx

from ... import ops
from ..analysis.heads import Head
from ..analysis.region import Region
from .copied import copied
from .cut import Part
from .parts import CacheSpec, HeadPart


def cut_head(source: fx.GraphModule, head: Head, region: Region) -> HeadPart:
    """A head as a module of its own, which computes rows of its result.

    Before:  y = linear(z, w)
    After:   y = linear(gather_active(z_cache, samples, positions), w)
    """
    graph, layout = fx.Graph(), region.layouts[head.value]
    samples, positions = graph.placeholder("samples"), graph.placeholder("positions")
    read = {operand for node in head.nodes for operand in node.all_input_nodes} - {*head.nodes}
    inputs = tuple(node for node in source.graph.nodes if node in read)
    values = {node: graph.placeholder(node.name) for node in inputs}
    for node, own in values.items():
        own.meta = dict(node.meta)
    cached = (values[head.value], samples, positions, layout.batch_dim, layout.token_dim)
    values[head.value] = graph.call_function(ops.gather_active, cached)
    for node in head.nodes:
        values[node] = copied(graph, node, lambda _, own: None if own is None else values[own], region.rows[node])
    graph.output(values[head.result])
    part = Part(fx.GraphModule(source, graph), inputs, (head.result,))
    result = head.result
    return HeadPart(head, part, CacheSpec(f"{result.name}_cache", result, "result", region.layouts[result]))

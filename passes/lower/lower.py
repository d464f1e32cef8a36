"""Compile the rewritten step layer by layer: those that are the same computation once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence

from torch import Tensor, fx

from ... import ops
from ..rewrite.cut import Part
from ..rewrite.denoiser import RAGGED
from ..rewrite.parts import Split
from ..rewrite.sites import SITE
from .products import use_onednn
from .repeats import Segment, find_segments, is_of_child
from .shared import Module, SharedCode
from .standalone import Ragged
from .symbolic import ragged_dims

Incremental = Callable[..., tuple[Tensor, ...]]
"""``(samples, *active, *read, *rows, *queried, *inputs, *caches) -> signals``"""

FEW = 8
"""So few operators run sooner than they are compiled."""


def lower(split: Split, *, compile: bool, shared: SharedCode | None = None, packed: bool = False) -> fx.GraphModule:
    """The rewritten region as a function, compiled for any number of active tokens A >= 2.

    Args:
        packed: multiply by packed copies of the weights.
        shared: what was compiled of the step for other lengths.

    Before:  x1 = layer(x0, w0, ...);  x2 = layer(x1, w1, ...);  ...
    After:   x1 = compiled(x0, w0, ...);  x2 = compiled(x1, w1, ...);  ...
    """
    module = split.incremental.module
    if not compile:
        return module
    graph = reading_written_caches(module.graph)
    ragged = ragged_dims(split, graph)
    use_onednn(graph, packed=packed)
    return compiled_by_segments(graph, ragged, shared or SharedCode(), samples_of(split))


def lower_rows(part: Part) -> fx.GraphModule:
    """A part of a denoiser, compiled for any number of rows R >= 2."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(part.module.graph, {}))
    ragged = {node: node.meta[RAGGED] for node in graph.nodes if RAGGED in node.meta}
    use_onednn(graph)
    return compiled_by_segments(graph, ragged, SharedCode(), 1)


def compiled_by_segments(
    graph: fx.Graph, ragged: Mapping[fx.Node, Mapping[int, Hashable]], shared: SharedCode, samples: int
) -> fx.GraphModule:
    """``graph`` with its layers compiled, those that are the same computation once; it is changed."""
    lowered = fx.Graph()
    values = {node: lowered.node_copy(node) for node in graph.find_nodes(op="placeholder")}
    segments = find_segments(graph)
    kinds = {own.kind: own for own in segments if len(own.nodes) > FEW and not is_of_child(own.nodes[0])}
    modules = [Module(module_of(segment), ragged_inputs(segment, ragged)) for segment in kinds.values()]
    compiled = dict(zip(kinds, shared.compiled(modules, samples)))
    for segment in segments:
        if segment.kind not in compiled:
            for node in segment.nodes:
                values[node] = lowered.node_copy(node, values.__getitem__)
            continue
        results = lowered.call_function(compiled[segment.kind], tuple(values[node] for node in segment.inputs))
        sites = dict.fromkeys(node.meta[SITE] for node in segment.nodes if SITE in node.meta)
        if sites:
            # Of compiled code a profiler is told which sites are in it.
            results.meta[SITE] = ", ".join(sites)
        for number, node in enumerate(segment.outputs):
            values[node] = lowered.call_function(result, (results, number))
    (output,) = graph.find_nodes(op="output")
    lowered.output(fx.map_arg(output.args[0], values.__getitem__))
    return fx.GraphModule({}, lowered)


def samples_of(split: Split) -> int:
    spec = split.caches[0]
    return spec.shape[spec.layout.batch_dim]


def result(results: Sequence[Tensor], number: int) -> Tensor:
    return results[number]


def reading_written_caches(graph: fx.Graph) -> fx.Graph:
    """A copy in which what reads an updated cache reads the cache, which by then is written in place."""
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    for node in copy.find_nodes(op="call_function", target=ops.update_cache):
        node.replace_all_uses_with(node.args[0])
    return copy


def ragged_inputs(segment: Segment, ragged: Mapping[fx.Node, Mapping[int, Hashable]]) -> tuple[Ragged, ...]:
    """The dimensions of a segment's inputs whose size depends on how many tokens are active."""
    sizes: dict[Hashable, int] = {}
    return tuple(
        Ragged(number, dim, sizes.setdefault(size, len(sizes)))
        for number, node in enumerate(segment.inputs)
        for dim, size in ragged.get(node, {}).items()
    )


def module_of(segment: Segment) -> fx.GraphModule:
    """A segment as a module that returns its outputs."""
    graph = fx.Graph()
    values = {node: graph.placeholder(node.name) for node in segment.inputs}
    for node, placeholder in values.items():
        placeholder.meta["val"] = node.meta.get("val")
    for node in segment.nodes:
        values[node] = graph.node_copy(node, values.__getitem__)
    graph.output(tuple(values[node] for node in segment.outputs))
    return fx.GraphModule({}, graph)

"""Hand the rewritten step to `torch.compile`: layers that are the same computation are compiled once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ... import ops
from ..rewrite.parts import Split
from .products import use_onednn
from .repeats import Segment, find_segments
from .symbolic import ragged_dims

Incremental = Callable[..., tuple[Tensor, ...]]
"""``(samples, *active, *read, *rows, *queried, *inputs, *caches) -> signals``"""

FEW = 8
"""So few operators run sooner than they are compiled."""


def lower(split: Split, *, compile: bool) -> Incremental:
    """The rewritten region as a function, compiled for any number of active tokens A >= 2.

    Before:  x1 = layer(x0, w0, ...);  x2 = layer(x1, w1, ...);  ...
    After:   x1 = compiled(x0, w0, ...);  x2 = compiled(x1, w1, ...);  ...
    """
    module = split.incremental.module
    if not compile:
        return module
    graph = reading_written_caches(module.graph)
    ragged = ragged_dims(split, graph)
    use_onednn(graph)
    lowered = fx.Graph()
    values = {node: lowered.node_copy(node) for node in graph.find_nodes(op="placeholder")}
    compiled: dict[int, Compiled] = {}
    for segment in find_segments(graph):
        if len(segment.nodes) <= FEW:
            for node in segment.nodes:
                values[node] = lowered.node_copy(node, values.__getitem__)
            continue
        if segment.kind not in compiled:
            dims = [(number, dim) for number, node in enumerate(segment.inputs) for dim in ragged.get(node, ())]
            compiled[segment.kind] = Compiled(module_of(segment), dims)
        results = lowered.call_function(compiled[segment.kind], tuple(values[node] for node in segment.inputs))
        for number, node in enumerate(segment.outputs):
            values[node] = lowered.call_function(result, (results, number))
    (output,) = graph.find_nodes(op="output")
    lowered.output(fx.map_arg(output.args[0], values.__getitem__))
    return fx.GraphModule({}, lowered)


def result(results: Sequence[Tensor], number: int) -> Tensor:
    return results[number]


def reading_written_caches(graph: fx.Graph) -> fx.Graph:
    """A copy in which what reads an updated cache reads the cache, which by then is written in place."""
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph, {}))
    for node in copy.find_nodes(op="call_function", target=ops.update_cache):
        node.replace_all_uses_with(node.args[0])
    return copy


def module_of(segment: Segment) -> fx.GraphModule:
    """A segment as a module that returns its outputs."""
    graph = fx.Graph()
    values = {node: graph.placeholder(node.name) for node in segment.inputs}
    for node in segment.nodes:
        values[node] = graph.node_copy(node, values.__getitem__)
    graph.output(tuple(values[node] for node in segment.outputs))
    return fx.GraphModule({}, graph)


class Compiled:
    """A module compiled at its first call, for any size of the dimensions ``ragged``: ``(input, dimension)``."""

    def __init__(self, module: fx.GraphModule, ragged: Sequence[tuple[int, int]]) -> None:
        self.module: Callable[..., Any] = module
        self.ragged = tuple(ragged)
        self.compiled = torch.compile(module, dynamic=False)
        # What the generated code of a graph calls it.
        self.__name__ = self.__qualname__ = "compiled"
        self.__module__ = __name__

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        # Marked on every call: the tensors are new each time.
        for number, dim in self.ragged:
            torch._dynamo.mark_dynamic(inputs[number], dim)
        try:
            return self.compiled(*inputs)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            # The compiler takes a second to load, so it waits until something is compiled.
            from torch._inductor.exc import InvalidCxxCompiler, TritonMissing

            if not isinstance(error.inner_exception, (InvalidCxxCompiler, TritonMissing)):
                raise
            # Raised while it compiles, before anything has run.
            warn_of_no_compiler(str(error.inner_exception))
            self.compiled = self.module
            return self.compiled(*inputs)


WARNED: set[str] = set()


def warn_of_no_compiler(reason: str) -> None:
    if reason not in WARNED:
        WARNED.add(reason)
        warnings.warn(f"torch.compile cannot run here, so steps run eagerly: {reason}", stacklevel=2)

"""Equal computations are found by comparing graphs, and only equal ones."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx

from marche_fx.passes.lower.repeats import Segment, find_segments

aten = torch.ops.aten


def layer(graph: fx.Graph, x: fx.Node, number: int, scale: float) -> fx.Node:
    """Eight operators with a residual."""
    weight = graph.placeholder(f"w{number}")
    weight.meta["val"] = torch.empty(4, 4)
    y = x
    for target in (aten.sin.default, aten.cos.default, aten.tanh.default, aten.exp.default):
        y = graph.call_function(target, (y,))
    y = graph.call_function(aten.mul.Tensor, (y, scale))
    y = graph.call_function(aten.matmul.default, (y, weight))
    y = graph.call_function(aten.neg.default, (y,))
    return graph.call_function(aten.add.Tensor, (x, y))


def stack(scales: list[float], before: int, after: int) -> fx.Graph:
    """Layers with their scales between so many other operators."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    for _ in range(before):
        x = graph.call_function(aten.abs.default, (x,))
    for number, scale in enumerate(scales):
        x = layer(graph, x, number, scale)
    for _ in range(after):
        x = graph.call_function(aten.sign.default, (x,))
    graph.output((x,))
    return graph


def run(graph: fx.Graph, segments: tuple[Segment, ...], given: dict[str, Tensor]) -> Tensor:
    """The first segment of each kind in place of every one of that kind."""
    firsts: dict[int, Segment] = {}
    values = {node: given[node.name] for node in graph.find_nodes(op="placeholder")}
    for segment in segments:
        first = firsts.setdefault(segment.kind, segment)
        own = {node: values[outer] for node, outer in zip(first.inputs, segment.inputs, strict=True)}
        for node in first.nodes:
            args, kwargs = fx.map_arg((node.args, node.kwargs), own.__getitem__)
            target: Any = node.target
            own[node] = target(*args, **kwargs)
        values |= {outer: own[node] for node, outer in zip(first.outputs, segment.outputs, strict=True)}
    (output,) = graph.find_nodes(op="output")
    return values[output.args[0][0]]


def test_layers_that_differ_in_their_weights_alone_are_of_one_kind() -> None:
    segments = find_segments(stack([0.5] * 3, before=2, after=1))
    assert [(len(segment.nodes), segment.kind) for segment in segments] == [(2, 0), (8, 1), (8, 1), (8, 1), (1, 2)]
    assert all(len(segment.outputs) == 1 for segment in segments)


def test_a_constant_makes_another_kind() -> None:
    segments = find_segments(stack([0.5, 0.5, 2.0, 2.0], before=0, after=0))
    assert [segment.kind for segment in segments] == [0, 0, 1, 1]


def test_layers_are_cut_where_other_layers_around_them_stay_whole() -> None:
    """Of each layer's two halves the first is observed in the first layers; a cut in the middle would split one."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    observed = []
    for number in range(6):
        x = layer(graph, x, 2 * number, 0.5)
        if number < 2:
            last = x.args[1]
            assert isinstance(last, fx.Node)
            with graph.inserting_after(last):
                observed.append(graph.call_function(aten.abs.default, (last,)))
        x = layer(graph, x, 2 * number + 1, 2.0)
    graph.output((x, *observed))
    found = [(len(segment.nodes), segment.kind) for segment in find_segments(graph)]
    assert found == [(17, 0)] * 2 + [(16, 1)] * 4


@given(
    scales=st.lists(st.sampled_from([0.5, 2.0]), min_size=1, max_size=6),
    before=st.integers(0, 4),
    after=st.integers(0, 4),
)
@settings(max_examples=60, deadline=None)
def test_one_segment_of_a_kind_can_stand_for_all(scales: list[float], before: int, after: int) -> None:
    graph = stack(scales, before, after)
    segments = find_segments(graph)
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    assert [node for segment in segments for node in segment.nodes] == nodes
    torch.manual_seed(0)
    given = {node.name: torch.randn(4, 4) for node in graph.find_nodes(op="placeholder")}
    expected = fx.GraphModule({}, graph)(*given.values())[0]
    assert torch.equal(run(graph, segments, given), expected)

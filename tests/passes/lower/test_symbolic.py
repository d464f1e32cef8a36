"""Which sizes of a rewritten step are the number of active tokens, against sizes of steps that were run."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from marche_fx.passes.lower import symbolic
from marche_fx.passes.lower.symbolic import like, propagate, ragged_dims
from tests.networks import Transformer
from tests.program import Program

aten = torch.ops.aten

TOKENS, WIDTH = 11, 12


def program(depth: int, samples: int = 2) -> Program:
    model = Transformer(TOKENS, WIDTH, 2, depth=depth).eval()
    return Program(model, "forward", [torch.randn(samples, TOKENS, WIDTH)])


def shapes_of(own: Program, samples: int, count: int) -> dict[fx.Node, torch.Size]:
    """Shapes of a step that was run, with so many active tokens in each sample."""
    active = [torch.stack([torch.randperm(TOKENS)[:count] for _ in range(samples)])]
    return own.shapes([torch.randn(samples, TOKENS, WIDTH)], *active)


@settings(deadline=None, max_examples=8)
@given(depth=st.integers(1, 3), samples=st.integers(1, 3), counts=st.sampled_from([(2, 5), (3, 4), (7, 9)]))
@torch.no_grad()
def test_the_sizes_that_differ_from_step_to_step_are_those_that_are_told(
    depth: int, samples: int, counts: tuple[int, int]
) -> None:
    own = program(depth, samples)
    found = ragged_dims(own.split, own.split.incremental.module.graph)
    few, many = (shapes_of(own, samples, count) for count in counts)
    for node, shape in few.items():
        differing = {dim for dim, (a, b) in enumerate(zip(shape, many[node], strict=True)) if a != b}
        assert {*found[node]} == differing, node.name


def test_shapes_of_layers_that_are_alike_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[fx.Node] = []
    result_of: Callable[..., Any] = symbolic.result_of

    def counting(node: fx.Node, args: Any, kwargs: Any) -> Any:
        computed.append(node)
        return result_of(node, args, kwargs)

    monkeypatch.setattr(symbolic, "result_of", counting)
    counts = []
    for depth in (3, 5):
        own = program(depth)
        computed.clear()
        ragged_dims(own.split, own.split.incremental.module.graph)
        counts.append(len(computed))
    assert counts[0] == counts[1]


def test_kinds_of_values_and_constants_tell_operators_apart() -> None:
    # Of which two have the same sizes, and three the same strides.
    x = [torch.ones(2, 3), torch.ones(3, 2).t(), torch.ones(4, 3), torch.ones(2, 3, dtype=torch.int64)]
    found = sizes(
        x,
        lambda call, x: [
            *(call(aten.t.default, own) for own in x),
            *(call(aten.sum.dim_IntList, x[0], [dim]) for dim in (0, 1)),
        ],
    )
    for own, expected in zip(found, [*(own.t() for own in x), x[0].sum(0), x[0].sum(1)], strict=True):
        assert (own.shape, own.stride(), own.dtype) == (expected.shape, expected.stride(), expected.dtype)


def test_numbers_that_depend_on_values_are_others_each_time() -> None:
    first, second = sizes([torch.ones(3)] * 2, lambda call, x: [call(aten.nonzero.default, own) for own in x])
    assert str(first.shape[0]) != str(second.shape[0])


def sizes(
    inputs: list[Tensor], function: Callable[[Callable[..., fx.Node], list[fx.Node]], list[fx.Node]]
) -> list[Any]:
    """What `propagate` finds for results that ``function(call, inputs)`` adds to a graph."""
    graph = fx.Graph()
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    nodes = [graph.placeholder(f"x{number}") for number in range(len(inputs))]
    results = function(lambda target, *args: graph.call_function(target, args), nodes)
    values: dict[fx.Node, Any] = {node: like(mode, own) for node, own in zip(nodes, inputs, strict=True)}
    propagate(graph, values, mode)
    return [values[own] for own in results]


class Gated(Transformer):
    """Whose tokens are scaled by their largest channels."""

    def forward(self, x: Tensor, *mask: Tensor) -> Tensor:
        x = super().forward(x, *mask)
        values, places = x.topk(2, dim=-1)
        return x * values.sum(-1, keepdim=True) + places.sum(-1, keepdim=True)


def test_an_operator_of_several_results_has_sizes_too() -> None:
    model = Gated(TOKENS, WIDTH, 2, depth=2).eval()
    own = Program(model, "forward", [torch.randn(2, TOKENS, WIDTH)])
    found = ragged_dims(own.split, own.split.incremental.module.graph)
    (values, places) = own.split.incremental.module.graph.find_nodes(op="call_function", target=operator.getitem)
    assert found[values] == found[places]
    assert {*found[values]} == {1}

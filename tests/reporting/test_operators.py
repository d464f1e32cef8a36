"""Where each operator runs and on how many rows, against the shapes of values when the rewritten step really runs."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.reporting.operators import StepGraph, graph_dict
from marche_fx.runtime.records import StepRecord
from tests.networks import FoldedAttention, Transformer, WithConvolution, small_mar
from tests.reporting.test_report_sites import Joined


class Recorder(fx.Interpreter):
    """Runs a graph and keeps the shape of every value."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, Tensor):
            self.shapes[n.name] = tuple(value.shape)
        return value


def run_recorded(
    model: nn.Module, inputs: tuple[Tensor, ...]
) -> tuple[StepGraph, dict[str, tuple[int, ...]], StepRecord]:
    """A partial step of which one row is read: its graph, the shapes of all values in the region, and its record."""
    optimized = marche_fx.transform(model.eval(), refresh=SelectiveRefresh(0.45, warmup=1), compile=False)
    with torch.no_grad(), marche_fx.decoding(optimized):
        optimized(*inputs)[:, 2].sum()
        (program,) = optimization_of(optimized).steps["forward"].programs
        recorder = Recorder(program.split.incremental.module)
        program.incremental = lambda *args: recorder.run(*args)
        optimized(*inputs)[:, 2].sum()
    session = optimization_of(optimized).last_session
    assert session is not None
    (graph,) = marche_fx.report(optimized).graphs
    return graph, recorder.shapes, session.records[-1]


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (Transformer(30, 16, 2), (torch.randn(2, 30, 16),)),
        (Transformer(30, 16, 2, attention=FoldedAttention), (torch.randn(2, 30, 16),)),
        (Joined(), (torch.randn(2, 30, 16), torch.randn(2, 5, 16))),
    ],
)
def test_shapes_after_the_rewrite_are_those_of_a_run(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    torch.manual_seed(0)
    graph, shapes, record = run_recorded(model, inputs)
    if len(record.counts) == 1:
        sizes = {"A": record.counts[0], "R": record.read[0]}
    else:
        sizes = {
            f"{letter}{number}": own
            for letter, counts in (("A", record.counts), ("R", record.read))
            for number, own in enumerate(counts)
        }
    assert record.counts != record.read
    compared = 0
    for own in graph.operators():
        if own.state not in ("active", "read") or own.name not in shapes:
            continue
        found = tuple(eval(size.replace("(", "*("), {}, sizes) for size in own.active_shape)
        assert found == shapes[own.name], own
        compared += own.state == "read"
    assert compared > 3


def test_what_runs_in_full_is_told_with_its_reason_and_its_flops() -> None:
    (graph,) = marche_fx.explain(WithConvolution(30, 16, 2).eval(), torch.randn(2, 30, 16)).graphs
    (own,) = [each for each in graph.operators() if each.state == "full"]
    assert (own.operator, own.module, own.reason) == (
        "aten.convolution.default",
        "neighbours.convolution",
        "mixes a window of 3 tokens",
    )
    assert own.flops == own.active_flops == 2 * 2 * 30 * 16 * 16 * 3
    assert own.active_shape == ("2", "16", "30")
    assert own.line.startswith("networks.py:")


def test_flops_of_operators_are_those_of_the_step() -> None:
    mask = torch.zeros(2, 9)
    mask[:, :4] = 1
    mar = small_mar().eval()
    report = marche_fx.explain(mar, torch.randn(2, 9, 4), mask, torch.randn(2, 16), step="forward_mae_encoder")
    (graph,), (step,) = report.graphs, report.steps
    assert sum(own.flops for own in graph.operators()) == pytest.approx(step.flops)
    assert sum(own.active_flops for own in graph.operators()) == pytest.approx(step.active_flops)
    assert {own.state for own in graph.operators()} >= {"active", "before", "after"}


def test_a_graph_is_plain_values() -> None:
    (graph,) = marche_fx.explain(WithConvolution(30, 16, 2).eval(), torch.randn(2, 30, 16)).graphs
    found = graph_dict(graph)
    assert json.loads(json.dumps(found)) == found
    cached = [own for own in found["operators"] if own["cache"]]
    assert {own["cache"]["role"] for own in cached} == {"attention", "operand", "result"}
    assert graph.module_types()["first.attention.qkv"] == "Linear"

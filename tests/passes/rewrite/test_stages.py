"""The prologue is cut by the inputs that it depends on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from marche_fx.passes.rewrite.stages import cut_stages
from tests.graphs import Function, graph_text
from tests.program import Program


def step(x: Tensor, context: Tensor, time: Tensor) -> Tensor:
    x = x * time.sin()[:, None, None] + torch.arange(5.0)[:, None]
    x = x + F.scaled_dot_product_attention(x, x, x)
    return x + F.scaled_dot_product_attention(x, context.exp(), context.exp() + time[:, None, None])


def test_what_depends_on_the_same_inputs_is_one_stage() -> None:
    program = Program(Function(step).eval(), "forward", [torch.randn(2, 5, 4), torch.randn(2, 3, 4), torch.ones(2)])
    plan = program.plan
    before = [node for node in plan.graph.nodes if node.op == "call_function" and plan.region.is_before(node)]
    stages = cut_stages(plan.dense.graph_module, before, program.split.prologue.outputs, plan.inputs)
    assert {
        tuple(sorted(node.name for node in stage.reads)): graph_text(stage.part.module.graph) for stage in stages
    } == {
        (): """\
arange = aten.arange(0, 5.0, layout=torch.strided, device=cpu)
unsqueeze_2 = aten.unsqueeze(arange, 1)
return unsqueeze_2""",
        ("leaves_2",): """\
sin = aten.sin(leaves_2)
unsqueeze = aten.unsqueeze(sin, 1)
unsqueeze_1 = aten.unsqueeze(unsqueeze, 2)
unsqueeze_3 = aten.unsqueeze(leaves_2, 1)
unsqueeze_4 = aten.unsqueeze(unsqueeze_3, 2)
return unsqueeze_1, unsqueeze_4""",
        ("leaves_1",): """\
exp = aten.exp(leaves_1)
exp_1 = aten.exp(leaves_1)
return exp, exp_1""",
        ("leaves_1", "leaves_2"): """\
add_2 = aten.add(exp_1, unsqueeze_4)
return add_2""",
    }


def test_the_stages_compute_what_the_prologue_does() -> None:
    inputs = [torch.randn(2, 5, 4), torch.randn(2, 3, 4), torch.rand(2)]
    program = Program(Function(step).eval(), "forward", inputs)
    plan, prologue = program.plan, program.split.prologue
    before = [node for node in plan.graph.nodes if node.op == "call_function" and plan.region.is_before(node)]
    values = dict(zip(plan.inputs, inputs)) | plan.dense.constants
    expected = dict(zip(prologue.outputs, prologue.module(*(values[node] for node in prologue.inputs))))
    for stage in cut_stages(plan.dense.graph_module, before, prologue.outputs, plan.inputs):
        values |= dict(zip(stage.part.outputs, stage.part.module(*(values[node] for node in stage.part.inputs))))
    for node, value in expected.items():
        assert torch.equal(values[node], value)

"""FLOPs as a function of the rows computed."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from marche_fx.passes.analysis.cost import Cost, step_cost
from tests.networks import FusedAttention, Transformer, WithConvolution
from tests.passes.rewrite.test_streams import IMAGE, TEXT, WIDTH, JointAttention, sliced
from tests.program import Program


def cost_of(program: Program) -> Cost:
    plan = program.plan
    return step_cost(plan.graph, plan.axes, plan.region)


@pytest.mark.parametrize("active", [2, 5, 9])
@torch.no_grad()
def test_the_count_is_what_pytorch_counts(active: int) -> None:
    model = Transformer(9, 8, 2, attention=FusedAttention).eval()
    x = torch.randn(3, 9, 8)
    program = Program(model, "forward", [x])
    program.step([x], torch.arange(9).expand(3, 9))
    # The fused kernel for CPUs is not known to PyTorch's counter, its parts are.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        program.step([x], torch.arange(active).expand(3, active))
    assert cost_of(program).incremental([active]) == counted.get_total_flops()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        model(x)
    assert cost_of(program).original() == counted.get_total_flops()


def test_what_runs_in_full_does_not_shrink() -> None:
    program = Program(WithConvolution(9, 8, 2).eval(), "forward", [torch.randn(3, 9, 8)])
    cost = cost_of(program)
    rows = cost.incremental([4]) - cost.incremental([2])
    assert rows == pytest.approx(2 * 3 * (cost.streams[0].live.of(9)))
    assert cost.original(9) == cost.original()


@torch.no_grad()
def test_a_step_of_several_streams_is_the_original_where_all_is_computed() -> None:
    model = JointAttention(sliced).eval()
    inputs = [torch.randn(2, tokens, WIDTH) for tokens in (TEXT, IMAGE)]
    program = Program(model, "forward", inputs)
    cost, every = cost_of(program), [torch.arange(tokens).expand(2, tokens) for tokens in (TEXT, IMAGE)]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        model(*inputs)
    assert cost.original() == cost.original(TEXT + IMAGE) == counted.get_total_flops()
    assert cost.incremental((TEXT, IMAGE)) == counted.get_total_flops()
    program.step(inputs, *every)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        program.step(inputs, every[0][:, :1], every[1][:, :2])
    assert cost.incremental((1, 2)) == counted.get_total_flops()

"""The region starts where tokens enter and ends where rows are no longer tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marche_fx.errors import UnsupportedModelError
from marche_fx.passes.analysis.plan import Plan
from marche_fx.passes.pipeline import make_plan
from tests.graphs import Function
from tests.networks import BiasedAttention, MaskedTextModel, PaddedTextModel, Transformer, WithConvolution, small_mar


def plan_of(model: nn.Module, *args: Any, step: str = "forward") -> Plan:
    return make_plan(model.eval(), step, args)


def marked(plan: Plan) -> str:
    """Every node: before the region, in it on rows, in it in full, or after it."""
    region = plan.region
    lines = []
    for node in plan.graph.nodes:
        if node.op == "call_function":
            place = "rows" if node in region.rows else "full" if node in region.full else None
            place = place or ("before" if region.is_before(node) else "after")
            lines.append(f"{place:6} {node.name}")
    return "\n".join(lines)


def test_where_every_node_is_computed() -> None:
    def step(ids: Tensor, table: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        x = F.embedding(ids, table) + torch.arange(5)[:, None].sin()
        y = x + F.scaled_dot_product_attention(x, F.linear(x, weight), x)
        return y, y.mean(1)

    plan = plan_of(Function(step), torch.zeros(2, 5, dtype=torch.long), torch.randn(7, 4), torch.randn(4, 4))
    assert marked(plan) == (
        """\
rows   embedding
before arange
before unsqueeze
before sin
rows   add
rows   linear
rows   scaled_dot_product_attention
rows   add_1
after  mean"""
    )
    assert [node.name for node in plan.region.entries] == ["leaves_0"]


def names(nodes: Any) -> set[str]:
    return {node.name for node in nodes}


def test_the_entries_of_mar_are_its_dense_tokens() -> None:
    model, mask = small_mar(), torch.eye(9)[:3]
    encoder = plan_of(model, torch.randn(3, 9, 4), mask, torch.randn(3, 16), step="forward_mae_encoder")
    decoder = plan_of(model, torch.randn(3, 10, 16), mask, step="forward_mae_decoder")
    # The values of the whole token axis, class tokens among them; nothing after them runs on all rows.
    assert [node.meta["val"].shape for node in encoder.region.entries] == [(3, 11, 16)]
    assert [node.meta["val"].shape for node in decoder.region.entries] == [(3, 11, 16)]
    assert not encoder.region.full
    assert not decoder.region.full


def test_a_mask_of_keys_is_no_entry() -> None:
    model = Transformer(7, 12, 2, attention=BiasedAttention)
    plan = plan_of(model, torch.randn(3, 7, 12), torch.ones(3, 7, dtype=torch.bool))
    assert names(plan.region.entries) == {"leaves_0"}
    assert not plan.region.full


def test_a_timestep_is_no_entry() -> None:
    plan = plan_of(MaskedTextModel(7, 12, 2), torch.zeros(3, 7, dtype=torch.long), torch.rand(3))
    assert names(plan.region.entries) == {"leaves_0"}
    assert not plan.region.full


def test_attention_under_a_mask_of_the_ids_runs_on_rows() -> None:
    plan = plan_of(PaddedTextModel(7, 12, 2), torch.ones(3, 7, dtype=torch.long))
    assert names(plan.region.entries) == {"leaves_0"}
    assert {"matmul", "softmax", "matmul_1"} <= names(plan.region.rows)


def test_what_mixes_tokens_without_being_attention_runs_in_full() -> None:
    plan = plan_of(WithConvolution(7, 12, 2), torch.randn(3, 7, 12))
    assert names(plan.region.full) == {"convolution"}


def test_samples_are_found_behind_tokens() -> None:
    def tokens_first(x: Tensor) -> Tensor:
        y = x.transpose(0, 1)
        return F.scaled_dot_product_attention(y, y, y)

    region = plan_of(Function(tokens_first), torch.randn(5, 2, 4)).region
    assert region.samples == 2
    assert {(layout.batch_dim, layout.token_dim) for layout in region.layouts.values()} == {(1, 0), (0, 1)}


def test_tokens_without_samples_are_refused() -> None:
    def unbatched(x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    with pytest.raises(UnsupportedModelError, match=r"tokens are the first dimension.*expects samples"):
        plan_of(Function(unbatched), torch.randn(5, 4))


@pytest.mark.parametrize("samples", [1, 3])
def test_attention_under_a_mask_of_its_own_values_runs_on_rows(samples: int) -> None:
    def step(x: Tensor) -> Tensor:
        sign = x.sin()[..., 0] > 0
        mask = (sign[:, :, None] == sign[:, None, :])[:, None]
        heads = x.unflatten(-1, (2, -1)).transpose(1, 2)
        return x + F.scaled_dot_product_attention(heads, heads, heads, mask).transpose(1, 2).flatten(2)

    plan = plan_of(Function(step), torch.randn(samples, 5, 4))
    assert {"eq", "unsqueeze_2", "scaled_dot_product_attention"} <= names(plan.region.rows)
    assert not plan.region.full

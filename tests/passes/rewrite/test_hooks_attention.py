"""The signal of attention: what keys received from the queried tokens."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from marche_fx import ops
from marche_fx.passes.rewrite.hooks import Hooks, insert_hooks
from tests.graphs import graph_text
from tests.networks import BiasedAttention, CausalAttention, EinsumAttention, FusedAttention, Transformer
from tests.passes.rewrite.hooked import SelfAttention, received
from tests.program import Program


def test_the_attention_that_keys_received_becomes_an_output() -> None:
    program = Program(SelfAttention(4).eval(), "forward", [torch.zeros(2, 5, 4)])
    before = graph_text(program.split.incremental.module.graph)
    hooked = insert_hooks(program.split, program.plan, [lambda hooks: hooks.attention(1)])[0]
    after = graph_text(hooked.incremental.module.graph)
    (attention,) = (line for line in before.splitlines() if "scaled_dot_product_attention(" in line)
    received = f"attention_received(squeeze, update_cache, samples, rows, queried, {1 / math.sqrt(2)}, None, 0, 1)"
    assert before.endswith("\nreturn ")
    assert after == (
        before.removesuffix("return ").replace(attention, f"{attention}\nattention_received = {received}")
        + "div_scalar = aten.div(attention_received, 1)\nreturn div_scalar"
    )


def by_hand(model: Transformer, x: Tensor, active: Tensor, queried: Tensor, *, causal: bool = False) -> Tensor:
    """The same from the first block's own projections, one query at a time."""
    block: Any = model.blocks[0]
    attention = block.attention
    rows = block.norm1(x + model.position)
    found = torch.zeros(x.shape[:2])
    for sample in range(len(x)):
        q, k = (t.view(x.shape[1], 2, -1) for t in attention.qkv(rows[sample]).chunk(3, -1)[:2])
        weights = []
        for position in active[sample][queried[sample]].tolist():
            for head in range(2):
                scores = k[:, head] @ q[position, head] / math.sqrt(q.shape[-1])
                if causal:
                    scores[position + 1 :] = float("-inf")
                weights.append(scores.softmax(-1))
        found[sample] = torch.stack(weights).mean(0)
    return found


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_the_signal_is_the_mean_attention_of_the_queried_tokens(causal: bool) -> None:
    torch.manual_seed(0)
    model = Transformer(7, 8, 2, attention=CausalAttention if causal else FusedAttention).eval()
    x = torch.randn(3, 7, 8)
    active = torch.tensor([[0, 2, 5], [1, 3, 6], [2, 4, 5]])
    queried = torch.tensor([[True, False, True], [False, True, False], [True, True, True]])
    signal = received(model, [x], active, queried, sites=1)
    assert torch.allclose(signal, by_hand(model, x, active, queried, causal=causal), atol=1e-6)
    assert torch.allclose(signal.sum(1), torch.ones(3))


@torch.no_grad()
def test_written_out_attention_gives_its_own_weights() -> None:
    torch.manual_seed(0)
    model = Transformer(7, 8, 2, attention=BiasedAttention).eval()
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[:, 4] = False
    active, queried = torch.tensor([[0, 2], [1, 3]]), torch.ones(2, 2, dtype=torch.bool)
    signal = received(model, [torch.randn(2, 7, 8), mask], active, queried, sites=2)
    assert torch.allclose(signal.sum(1), torch.ones(2))
    assert not signal[:, 4].any(), "nobody attends to what is masked"


def test_where_nobody_is_queried_all_active_tokens_count() -> None:
    attention = torch.rand(2, 3, 4, 6).softmax(-1)
    none = torch.zeros(2, 4, dtype=torch.bool)
    assert torch.allclose(ops.mean_over_queried(attention, none), attention.mean((1, 2)))


def test_of_a_sample_of_which_nobody_is_queried_nothing_is_measured_while_another_has_some() -> None:
    attention = torch.rand(2, 3, 4, 6).softmax(-1)
    queried = torch.tensor([[False, True, True, False], [False] * 4])
    received = ops.mean_over_queried(attention, queried)
    assert torch.allclose(received[0], attention[0, :, 1:3].mean((0, 1)))
    assert received[1].isnan().all()


def test_einsum_attention_is_not_mistaken() -> None:
    program = Program(Transformer(7, 8, 2, attention=EinsumAttention).eval(), "forward", [torch.randn(2, 7, 8)])
    for site in Hooks(program.split, program.plan).observable.values():
        assert site.weights is not None
        assert site.weights.meta["val"].shape == (2, 2, 7, 7)

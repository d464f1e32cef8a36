"""Attention is found by its dataflow, however it is written."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marche_fx.passes.analysis.attention import AttentionSite, find_attention_sites
from marche_fx.passes.capture.capture import capture
from tests.graphs import capture_function, graph_text
from tests.networks import (
    BiasedAttention,
    CausalAttention,
    EinsumAttention,
    FoldedAttention,
    FusedAttention,
    RotaryAttention,
    Transformer,
)


def sites_of(function: Any, *args: Tensor) -> list[AttentionSite]:
    return find_attention_sites(capture_function(function, *args).graph_module.graph)


def test_written_out_attention() -> None:
    def attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return (q @ k.transpose(1, 2) * 0.5 + bias).softmax(-1) @ v

    q, k = torch.randn(2, 5, 4), torch.randn(2, 7, 4)
    graph = capture_function(attention, q, k, k, torch.randn(5, 7)).graph_module.graph
    assert graph_text(graph) == (
        """\
permute = aten.permute(leaves_1, [0, 2, 1])
matmul = aten.matmul(leaves_0, permute)
mul = aten.mul(matmul, 0.5)
add = aten.add(mul, leaves_3)
softmax = aten.softmax(add, -1)
matmul_1 = aten.matmul(softmax, leaves_2)
return matmul_1"""
    )
    (site,) = find_attention_sites(graph)
    assert (site.q.name, site.k.name, site.v.name, site.node.name) == ("leaves_0", "permute", "leaves_2", "matmul_1")
    assert (site.query_dim, site.key_dim) == (1, 2)
    assert site.weights is not None
    assert site.product is not None
    assert (site.weights.name, site.product.name, site.product_query_dim) == ("softmax", "matmul", 1)


def test_fused_attention() -> None:
    def attention(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, k, attn_mask=mask, scale=0.3)

    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 7, 8)
    (site,) = sites_of(attention, q, k, torch.ones(5, 7, dtype=torch.bool))
    assert (site.q.name, site.k.name, site.v.name) == ("leaves_0", "leaves_1", "leaves_1")
    assert (site.heads, site.head_width, site.query_dim, site.key_dim) == (4, 8, 2, 2)
    assert (site.scale, site.causal) == (0.3, False)
    assert site.mask is not None
    assert site.mask.name == "leaves_2"


def test_the_default_scale_of_fused_attention() -> None:
    q = torch.randn(2, 4, 5, 16)
    (site,) = sites_of(lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True), q)
    assert (site.scale, site.causal, site.mask) == (0.25, True, None)


@pytest.mark.parametrize(
    "attention", [FusedAttention, BiasedAttention, FoldedAttention, EinsumAttention, CausalAttention, RotaryAttention]
)
@pytest.mark.parametrize(("tokens", "width", "heads"), [(5, 12, 2), (4, 4, 2)])
def test_every_layer_has_one_site(attention: type[nn.Module], tokens: int, width: int, heads: int) -> None:
    model = Transformer(tokens, width, heads, attention=attention)
    graph = capture(model.eval(), "forward", (torch.randn(3, tokens, width),)).graph_module.graph
    sites = find_attention_sites(graph)
    assert [site.path for site in sites] == ["blocks.0.attention", "blocks.1.attention"]
    assert all(site.line.startswith("networks.py:") for site in sites)
    for site in sites:
        assert site.q.meta["val"].shape[site.query_dim] == tokens
        assert site.k.meta["val"].shape[site.key_dim] == tokens
        assert site.head_width == width // heads


def test_queries_and_keys_are_told_apart_in_the_transposed_product() -> None:
    # scores [keys, queries], softmax over the first
    (site,) = sites_of(
        lambda q, k: ((k @ q.transpose(1, 2)).softmax(1).transpose(1, 2)) @ k,
        torch.randn(2, 5, 4),
        torch.randn(2, 7, 4),
    )
    assert site.k.name == "leaves_1"
    assert site.q.name == "permute"
    assert (site.query_dim, site.key_dim) == (2, 1)


@pytest.mark.parametrize(
    "function",
    [
        # probabilities of classes; a gate; attention whose weights nobody multiplies with values
        lambda x: (x @ x[0].T).softmax(-1),
        lambda x: x.softmax(-1) * x,
        lambda x: x.softmax(1) @ x.transpose(1, 2),
    ],
)
def test_a_softmax_that_is_not_attention(function: Any) -> None:
    assert sites_of(function, torch.randn(2, 5, 5)) == []


@pytest.mark.parametrize("shape", [(3, 5, 4), (4, 4, 4), (1, 5, 5)])
def test_a_table_of_pairs_in_front_of_the_scores_is_no_key(shape: tuple[int, int, int]) -> None:
    """Without heads, queries times ``[N, N, d]`` have the form of attention over samples, one for every position."""

    def attention(x: Tensor, table: Tensor, weight: Tensor) -> Tensor:
        q = F.linear(x, weight)
        return (torch.einsum("bid,ijd->bij", q, table) + q @ x.transpose(1, 2)).softmax(-1) @ x

    _, tokens, width = shape
    (site,) = sites_of(attention, torch.randn(shape), torch.randn(tokens, tokens, width), torch.randn(width, width))
    assert (site.q.name, site.k.name, site.query_dim) == ("linear", "permute", 1)


@pytest.mark.parametrize("form", ["bool", "additive"])
@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 4, 4), (1, 5, 4), (2, 2, 5, 4)])
def test_what_a_mask_is_made_of_is_no_key(shape: tuple[int, ...], form: str) -> None:
    """A mask or bias made of what an earlier attention gave: it has the keys' dimension but not that of queries."""

    def attention(x: Tensor, context: Tensor) -> Tensor:
        x = (x @ context.transpose(-1, -2)).softmax(-1) @ context
        alike = (x[..., :, None, 0] > 0) == (x[..., None, :, 0] > 0)
        if form == "additive":
            alike = -(x[..., :, None, 0] - x[..., None, :, 0]).abs()
        scores = x.sin() @ x.cos().transpose(-1, -2)
        scores = alike + scores if form == "additive" else torch.where(alike, scores, float("-inf"))
        return scores.softmax(-1) @ x.tanh()

    *outer, _, width = shape
    cross, site = sites_of(attention, torch.randn(shape), torch.randn(*outer, 3, width))
    assert cross.node is not site.product
    assert (site.q.name, site.v.name, site.query_dim) == ("sin", "tanh", len(shape) - 2)


def test_attention_above_many_residuals_is_found_without_walking_every_path() -> None:
    def attention(x: Tensor) -> Tensor:
        for _ in range(40):
            # Twice as many paths with each.
            x = x + x.sin()
        return (x @ x.transpose(1, 2)).softmax(-1) @ x

    (site,) = sites_of(attention, torch.randn(3, 5, 4))
    assert (site.query_dim, site.key_dim) == (1, 2)

"""Dropping tokens and hiding them from attention are the same to every token that stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from marche_fx.errors import UnsupportedModelError
from marche_fx.passes.capture.capture import capture
from marche_fx.passes.capture.captured import Capture
from marche_fx.passes.rewrite.pack import Packed, pack
from tests.graphs import capture_function, graph_text
from tests.networks import small_mar


def kept(x: Tensor, mask: Tensor) -> Tensor:
    """The tokens of ``x [B, N, D]`` where the mask is zero: ``[B, K, D]``."""
    return x[(1 - mask).nonzero(as_tuple=True)].view(len(x), -1, x.shape[-1])


def attention(x: Tensor, mask: Tensor) -> Tensor:
    x = torch.tanh(kept(x, mask))
    return F.scaled_dot_product_attention(x, x, x)


X = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1.0, 0, 0, 1, 0], [0, 1, 0, 1, 0]])


def test_dropped_tokens_become_invisible_keys() -> None:
    captured = capture_function(attention, X, MASK)
    assert graph_text(captured.graph_module.graph) == (
        """\
sub = aten.sub(1, leaves_1)
nonzero = aten.nonzero(sub)
slice_1 = aten.slice(nonzero, 1, 0, 1)
slice_2 = aten.slice(nonzero, 1, 1, 2)
squeeze = aten.squeeze(slice_1, [1])
squeeze_1 = aten.squeeze(slice_2, [1])
index = aten.index(leaves_0, [squeeze, squeeze_1])
view = aten.view(index, [2, -1, 4])
tanh = aten.tanh(view)
scaled_dot_product_attention = aten.scaled_dot_product_attention(tanh, tanh, tanh)
return scaled_dot_product_attention"""
    )
    packed = pack(captured)
    assert graph_text(packed.capture.graph_module.graph) == (
        """\
sub = aten.sub(1, leaves_1)
visible = aten.ne(sub, 0)
nonzero = aten.nonzero(sub)
slice_1 = aten.slice(nonzero, 1, 0, 1)
slice_2 = aten.slice(nonzero, 1, 1, 2)
squeeze = aten.squeeze(slice_1, [1])
squeeze_1 = aten.squeeze(slice_2, [1])
tanh = aten.tanh(leaves_0)
view = aten.view(visible, [2, 1, 5])
scaled_dot_product_attention = aten.scaled_dot_product_attention(tanh, tanh, tanh, view)
index_1 = aten.index(scaled_dot_product_attention, [squeeze, squeeze_1])
kept = aten.view(index_1, [2, -1, 4])
return kept"""
    )
    assert packed.visible is not None
    assert packed.visible.name == "visible"


# ------------------------------------------------------------------------------------------------ other forms


def written_out(x: Tensor, mask: Tensor) -> Tensor:
    x = kept(x, mask)
    return ((x @ x.transpose(1, 2) * 0.5).softmax(-1) * 0.9) @ x


def in_heads(x: Tensor, mask: Tensor) -> Tensor:
    x = kept(x, mask).view(2, -1, 2, 2).transpose(1, 2)
    return F.scaled_dot_product_attention(x, x, x).transpose(1, 2).reshape(2, -1, 4)


def to_all_keys(x: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(kept(x, mask), x, x)


def to_all_keys_with_bias(x: Tensor, mask: Tensor) -> Tensor:
    bias = torch.arange(5, dtype=x.dtype)
    return F.scaled_dot_product_attention(kept(x, mask), x, x, attn_mask=bias.view(1, 1, 5))


def with_boolean_mask(x: Tensor, mask: Tensor) -> Tensor:
    y = kept(x, mask)
    return F.scaled_dot_product_attention(y, y, y, attn_mask=torch.ones(2, 1, 1, dtype=torch.bool))


def with_additive_mask(x: Tensor, mask: Tensor) -> Tensor:
    y = kept(x, mask)
    return F.scaled_dot_product_attention(y, y, y, attn_mask=x[:, :1, :1])


def put_back(x: Tensor, mask: Tensor) -> Tensor:
    places = (1 - mask).nonzero(as_tuple=True)
    y = x[places].view(len(x), -1, x.shape[-1])
    padded = torch.full_like(x, 7)
    padded[places] = F.scaled_dot_product_attention(y, y, y).reshape(-1, x.shape[-1])
    return padded


def by_boolean_index(x: Tensor, mask: Tensor) -> Tensor:
    visible = mask == 0
    y = x[visible].view(len(x), -1, x.shape[-1])
    padded = torch.full_like(x, 7)
    padded[visible] = F.scaled_dot_product_attention(y, y, y).reshape(-1, x.shape[-1])
    return padded


def with_the_mask_made_twice(x: Tensor, mask: Tensor) -> Tensor:
    y = kept(x, mask)
    padded = torch.full_like(x, 7)
    padded[(1 - mask).nonzero(as_tuple=True)] = F.scaled_dot_product_attention(y, y, y).reshape(-1, x.shape[-1])
    return padded


def counted(x: Tensor, mask: Tensor) -> Tensor:
    y = kept(x, mask)
    return F.scaled_dot_product_attention(y, y, y) * y.shape[1]


@pytest.mark.parametrize(
    "function",
    [
        attention,
        written_out,
        in_heads,
        to_all_keys,
        to_all_keys_with_bias,
        with_boolean_mask,
        with_additive_mask,
        put_back,
        by_boolean_index,
        with_the_mask_made_twice,
        counted,
    ],
)
def test_the_dense_graph_equals_the_original(function: Any) -> None:
    packed = pack(capture_function(function, X, MASK))
    # Where others take the place of what was dropped, every token is computed.
    assert (packed.visible is None) == (function in (put_back, by_boolean_index, with_the_mask_made_twice))
    for mask in (MASK, torch.zeros(2, 5), torch.tensor([[0.0, 1, 1, 0, 1], [1, 1, 1, 0, 0]])):
        (found,) = packed.capture.graph_module(X, mask)
        torch.testing.assert_close(found, function(X, mask))


def test_what_was_dropped_is_not_read() -> None:
    packed = pack(capture_function(written_out, X, MASK))
    poisoned = X.masked_fill(MASK.bool()[:, :, None], 1e6)
    assert torch.equal(packed.capture.graph_module(poisoned, MASK)[0], packed.capture.graph_module(X, MASK)[0])


def test_a_step_that_drops_nothing_is_left_alone() -> None:
    captured = capture_function(lambda x: F.scaled_dot_product_attention(x, x, x), X)
    assert pack(captured) == Packed(captured, None)


# ------------------------------------------------------------------------------------------------ MAR's encoder


@pytest.fixture(scope="module")
def encoder() -> tuple[Any, Capture]:
    torch.manual_seed(0)
    model = small_mar().eval()
    args = (torch.randn(2, 9, 4), torch.eye(9)[:2], torch.randn(2, 16))
    return model, pack(capture(model, "forward_mae_encoder", args)).capture


@given(count=st.integers(0, 8), seed=st.integers(0, 99))
@torch.no_grad()
def test_the_encoder_of_mar_equals_its_dense_graph(encoder: tuple[Any, Capture], count: int, seed: int) -> None:
    model, dense = encoder
    torch.manual_seed(seed)
    mask = (torch.rand(2, 9).argsort(-1) < count).float()
    args = (torch.randn(2, 9, 4), mask, torch.randn(2, 16))
    values = {node: model.get_parameter(path) for node, path in dense.weights.items()}
    values |= {leaf.node: arg for leaf, arg in zip(dense.inputs, args) if leaf.node is not None}
    placeholders = dense.graph_module.graph.find_nodes(op="placeholder")
    (found,) = dense.graph_module(*[values[node] for node in placeholders])
    torch.testing.assert_close(found, model.forward_mae_encoder(*args), rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------------------------ refusals


def pooled(x: Tensor, mask: Tensor) -> Tensor:
    return kept(x, mask).mean(1)


def running_sum(x: Tensor, mask: Tensor) -> Tensor:
    y = kept(x, mask).cumsum(1)
    return F.scaled_dot_product_attention(y, y, y)


def two_masks(x: Tensor, mask: Tensor) -> Tensor:
    y, z = kept(x, mask), kept(x, mask.flip(0))
    return F.scaled_dot_product_attention(y, z, z)


def causal(x: Tensor, mask: Tensor) -> Tensor:
    y = kept(x, mask)
    return F.scaled_dot_product_attention(y, y, y, is_causal=True)


def transposed(x: Tensor, mask: Tensor) -> Tensor:
    return kept(x, mask).transpose(1, 2)


def positions_of_kept(x: Tensor, mask: Tensor) -> Tensor:
    y = kept(x, mask)
    return y + torch.ones(y.shape)


def folded(x: Tensor, mask: Tensor) -> Tensor:
    y = kept(x, mask).view(2, -1, 2, 2).transpose(1, 2).reshape(4, -1, 2)
    return F.scaled_dot_product_attention(y, y, y)


def unmasked_weights(x: Tensor, mask: Tensor) -> Tensor:
    y = kept(x, mask)
    return ((y @ y.transpose(1, 2)).softmax(-1) + 0.1) @ y


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (pooled, r"aten\.mean.* mixes tokens that aten\.view.* kept"),
        (running_sum, r"aten\.cumsum.* mixes tokens that aten\.view.* kept"),
        (two_masks, r"keeps tokens by another mask"),
        (causal, r"aten\.scaled_dot_product_attention.* is causal among tokens"),
        (transposed, r"aten\.permute.* returns kept tokens in dimensions \[2\]"),
        (positions_of_kept, r"aten\.add.* reads aten\.full.*made for as many tokens"),
        (folded, r"aten\.scaled_dot_product_attention.*holds 4 of 2 samples"),
        (unmasked_weights, r"aten\.matmul.* mixes tokens"),
    ],
)
def test_what_would_see_dropped_tokens_is_refused_by_name_and_line(function: Any, message: str) -> None:
    captured = capture_function(function, X, MASK)
    with pytest.raises(UnsupportedModelError, match=message) as raised:
        pack(captured)
    assert "graphs.py:" in str(raised.value)

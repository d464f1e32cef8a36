"""The token axis is proven by rules, whatever the sizes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from marche_fx.errors import GraphError, UnsupportedModelError
from marche_fx.passes.analysis.attention import find_attention_sites
from marche_fx.passes.analysis.axes import TokenAxes, find_token_axes
from marche_fx.passes.capture.capture import capture
from marche_fx.passes.rewrite.pack import pack
from marche_fx.passes.rules.dim_map import DimMap
from marche_fx.passes.rules.table import RULES
from tests.graphs import capture_function, graph_text
from tests.networks import BiasedAttention, MaskedTextModel, Transformer, small_mar

aten = torch.ops.aten


def axes_of(graph: fx.Graph) -> TokenAxes:
    return find_token_axes(graph, find_attention_sites(graph), graph.find_nodes(op="placeholder"))


def marked(graph: fx.Graph) -> str:
    """The shape of every value, its token axis written N."""
    axes = axes_of(graph)
    lines = []
    for node in graph.nodes:
        if node.op == "call_function":
            dims = axes.dims.get(node, ())
            shape = ["N" if dim in dims else str(size) for dim, size in enumerate(node.meta["val"].shape)]
            lines.append(f"{node.name} [{', '.join(shape)}]")
    return "\n".join(lines)


def attention(x: Tensor, weight: Tensor) -> Tensor:
    q, k = F.linear(x, weight).view(3, 5, 2, 4).permute(2, 0, 1, 3)
    return (q @ k.transpose(1, 2)).softmax(-1) @ x


def test_the_token_axis_of_every_value() -> None:
    graph = capture_function(attention, torch.randn(3, 5, 6), torch.randn(8, 6)).graph_module.graph
    assert graph_text(graph) == (
        """\
linear = aten.linear(leaves_0, leaves_1)
view = aten.view(linear, [3, 5, 2, 4])
permute = aten.permute(view, [2, 0, 1, 3])
slice_1 = aten.slice(permute, 0, 0, 1)
slice_2 = aten.slice(permute, 0, 1, 2)
squeeze = aten.squeeze(slice_1, [0])
squeeze_1 = aten.squeeze(slice_2, [0])
permute_1 = aten.permute(squeeze_1, [0, 2, 1])
matmul = aten.matmul(squeeze, permute_1)
softmax = aten.softmax(matmul, -1)
matmul_1 = aten.matmul(softmax, leaves_0)
return matmul_1"""
    )
    assert marked(graph) == (
        """\
linear [3, N, 8]
view [3, N, 2, 4]
permute [2, 3, N, 4]
slice_1 [1, 3, N, 4]
slice_2 [1, 3, N, 4]
squeeze [3, N, 4]
squeeze_1 [3, N, 4]
permute_1 [3, 4, N]
matmul [3, N, N]
softmax [3, N, N]
matmul_1 [3, N, 6]"""
    )


def token_dims(model: nn.Module, step: str, *args: Any) -> dict[str, tuple[int, ...]]:
    packed = pack(capture(model.eval(), step, args)).capture.graph_module.graph
    return {node.name: dims for node, dims in axes_of(packed).dims.items()}


@pytest.mark.parametrize(
    ("samples", "tokens", "heads", "width"), [(4, 4, 2, 4), (2, 2, 2, 4), (1, 3, 3, 9), (3, 3, 1, 4)]
)
def test_equal_sizes_do_not_mislead(samples: int, tokens: int, heads: int, width: int) -> None:
    model = Transformer(tokens, width, heads, depth=1, attention=BiasedAttention)
    found = token_dims(model, "forward", torch.randn(samples, tokens, width))
    # The same model where no two sizes are equal.
    plain = Transformer(7, 10, 2, depth=1, attention=BiasedAttention)
    expected = token_dims(plain, "forward", torch.randn(3, 7, 10))
    assert found == {name: dims for name, dims in expected.items() if name in found}
    assert {"add", "linear", "matmul", "softmax", "p_model_position"} <= set(found)


def test_the_class_tokens_of_an_encoder_lie_on_the_token_axis() -> None:
    mask = torch.tensor([[1.0, 0, 0, 0, 1, 1, 0, 0, 0]] * 3)
    found = token_dims(small_mar(), "forward_mae_encoder", torch.randn(3, 9, 4), mask, torch.randn(3, 16))
    assert found["layer_norm"] == (1,)
    assert found["scaled_dot_product_attention"] == (2,)
    # Without the class tokens it is another axis.
    assert "linear" not in found


def test_keys_from_elsewhere_are_another_axis() -> None:
    def cross(x: Tensor, context: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, context, context)

    graph = capture_function(cross, torch.randn(3, 5, 4), torch.randn(3, 5, 4)).graph_module.graph
    assert {node.name for node in axes_of(graph).dims} == {"leaves_0", "scaled_dot_product_attention"}


def test_parameters_know_the_token_axis_too() -> None:
    model = MaskedTextModel(5, 8, 2)
    found = token_dims(model, "forward", torch.zeros(3, 5, dtype=torch.long), torch.rand(3))
    assert found["b_model_blocks_0_attention_cos"] == (0,)
    assert found["leaves_0"] == (1,)
    assert "leaves_1" not in found


class TokenMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token_mlp = nn.Sequential(nn.Linear(5, 5), nn.GELU(), nn.Linear(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.token_mlp(torch.relu(x).transpose(1, 2)).transpose(1, 2)


def test_a_model_without_attention_is_refused_and_told_what_mixes_its_tokens() -> None:
    graph = capture(TokenMixer().eval(), "forward", (torch.randn(3, 5, 4),)).graph_module.graph
    with pytest.raises(
        UnsupportedModelError, match=r"no attention.*aten\.linear at token_mlp\.0 \(test_axes\.py:\d+\)"
    ):
        axes_of(graph)


def test_parts_that_a_split_cuts_are_axes_of_their_own() -> None:
    def attend_to_rest(x: Tensor) -> Tensor:
        query, rest = x.split([2, 3], 1)
        return F.scaled_dot_product_attention(query, rest, rest)

    axes = axes_of(capture_function(attend_to_rest, torch.randn(3, 5, 4)).graph_module.graph)
    assert {node.name for node in axes.dims} == {"slice_1", "scaled_dot_product_attention"}
    assert axes.length == 2


def test_a_wrong_rule_is_an_error_that_names_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = capture_function(attention, torch.randn(3, 5, 6), torch.randn(8, 6)).graph_module.graph
    # As if a permutation left every dimension in its place.
    stays = lambda node: DimMap({(0, dim): dim for dim in range(node.meta["val"].ndim)})  # noqa: E731
    monkeypatch.setitem(RULES, aten.permute.default, stays)
    with pytest.raises(GraphError, match=r"aten\.permute \(graphs\.py:\d+\): its rule"):
        axes_of(graph)

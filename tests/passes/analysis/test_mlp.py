"""MLPs are found by their dataflow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marche_fx.passes.analysis.mlp import find_mlp_sites
from marche_fx.passes.capture.capture import capture
from tests.graphs import graph_text
from tests.networks import GatedMlp, MaskedTextModel, Mlp, Transformer


def graph_of(model: nn.Module, *args: Tensor) -> Any:
    return capture(model.eval(), "forward", args).graph_module.graph


def test_linear_activation_linear() -> None:
    graph = graph_of(Mlp(4), torch.randn(2, 5, 4))
    assert graph_text(graph) == (
        """\
linear = aten.linear(leaves_0, fc1_weight, fc1_bias)
gelu = aten.gelu(linear)
linear_1 = aten.linear(gelu, fc2_weight, fc2_bias)
return linear_1"""
    )
    (site,) = find_mlp_sites(graph)
    assert [node.name for node in (*site.up, site.activation, site.down)] == ["linear", "gelu", "linear_1"]
    assert (site.width, site.hidden, site.activation_name, site.path) == (4, 8, "gelu", "fc2")
    assert site.line.startswith("networks.py:")


def test_a_gated_mlp_has_two_linears_that_widen() -> None:
    (site,) = find_mlp_sites(graph_of(GatedMlp(4), torch.randn(2, 5, 4)))
    assert {node.name for node in site.up} == {"linear", "linear_1"}
    assert (site.activation_name, site.hidden) == ("silu", 8)


class GatedBySplit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 16)
        self.down = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(x).chunk(2, -1)
        return self.down(F.gelu(gate) * up)


def test_a_gated_mlp_whose_linear_is_cut_in_two() -> None:
    (site,) = find_mlp_sites(graph_of(GatedBySplit(), torch.randn(2, 5, 4)))
    assert [node.name for node in site.up] == ["linear"]
    assert (site.activation_name, site.hidden, site.width) == ("gelu", 8, 4)


@pytest.mark.parametrize(("tokens", "width"), [(5, 12), (4, 4)])
def test_every_layer_has_one_site(tokens: int, width: int) -> None:
    model = Transformer(tokens, width, 2)
    sites = find_mlp_sites(graph_of(model, torch.randn(2, tokens, width)))
    assert [site.path for site in sites] == ["blocks.0.mlp.fc2", "blocks.1.mlp.fc2"]
    text_model = MaskedTextModel(tokens, width, 2)
    sites = find_mlp_sites(graph_of(text_model, torch.zeros(2, tokens, dtype=torch.long), torch.rand(2)))
    assert [site.path for site in sites] == ["blocks.0.mlp.down", "blocks.1.mlp.down"]


class TokenMixer(nn.Module):
    """Linear, activation, linear, but over tokens and channels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Linear(5, 5)
        self.channels = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.channels(F.gelu(self.tokens(x.transpose(1, 2))).transpose(1, 2))


def test_linears_over_other_axes_are_no_mlp() -> None:
    assert find_mlp_sites(graph_of(TokenMixer(), torch.randn(2, 5, 4))) == []


def test_two_linears_without_activation_are_no_mlp() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    assert find_mlp_sites(graph_of(model, torch.randn(2, 5, 4))) == []

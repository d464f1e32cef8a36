"""A head computes what it did, with products by oneDNN."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError
from marche_fx.api.head import Linear, with_fast_products
from marche_fx.passes.lower import products
from tests.networks import small_mar


class Shared(nn.Module):
    """A linear under two names, one of a kind of its own, and a layer that has none."""

    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Dropout(0.5))
        self.again = self.first
        self.doubled = Shared.Doubled(64, 64)
        self.nothing = None
        self.norm = nn.LayerNorm(64)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.doubled(self.again(self.first(x))))


@pytest.fixture
def products_by_onednn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that go to oneDNN, however few."""
    found: list[int] = []

    def counted(x: Tensor, *others: Any) -> Tensor:
        found.append(len(x))
        return onednn(x, *others)

    onednn = products.onednn
    monkeypatch.setattr(products, "onednn", counted)
    monkeypatch.setattr(products, "is_faster", lambda: True)
    monkeypatch.setattr(products, "SMALL", 0)
    return found


@torch.no_grad()
def test_a_diffusion_head_draws_the_same_tokens(products_by_onednn: list[int]) -> None:
    torch.manual_seed(0)
    mar = small_mar(side=4, width=16, buffer=4).eval()
    for parameter in mar.diffloss.parameters():
        nn.init.normal_(parameter, std=0.2)
    optimized = marche_fx.transform(mar)
    z = torch.randn(6, 16)
    noise = torch.randn(len(mar.diffloss.gen_diffusion), 3, 4)
    drawn = optimized.diffloss.sample(z, cfg=2.0, noise=noise)
    assert set(products_by_onednn) == {6}
    products_by_onednn.clear()
    expected = mar.diffloss.sample(z, cfg=2.0, noise=noise)
    assert not products_by_onednn, "the original is left alone"
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_copy_has_the_same_structure_and_weights(products_by_onednn: list[int]) -> None:
    head: Any = Shared()
    own: Any = with_fast_products(head)
    assert own.first is own.again, "a module under two names is one copy"
    assert type(own.first[0]) is Linear
    assert own.doubled is head.doubled, "what a subclass computes is its own affair"
    assert own.norm is head.norm
    assert all(a is b for a, b in zip(own.parameters(), head.parameters(), strict=True))
    x = torch.randn(3, 64)
    head.double()
    head.first[0].weight.mul_(2)
    head.first[0].register_forward_hook(lambda module, args, output: output + 1)
    assert head.training, "its mode stays"
    assert torch.equal(own(x.double()), head.eval()(x.double()))
    assert not products_by_onednn, "float64 is not for oneDNN"
    torch.testing.assert_close(own.float()(x), head(x), atol=1e-5, rtol=1e-5)
    assert products_by_onednn == [3, 3]


def test_gradients_autocast_and_compilers_see_the_original_product(products_by_onednn: list[int]) -> None:
    head: Any = nn.Sequential(nn.Linear(8, 8), nn.Tanh()).eval()
    own = with_fast_products(head)
    x = torch.randn(2, 8)
    own(x).sum().backward()
    found = head[0].weight.grad
    assert found is not None
    assert found.abs().sum() > 0
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(own(x), head(x))
        assert own(x).dtype is torch.bfloat16
    with torch.no_grad():
        exported = torch.export.export(own, (x,), strict=False).graph
    assert any(node.target is torch.ops.aten.linear.default for node in exported.nodes)
    assert not products_by_onednn


def test_where_there_is_nothing_to_do_a_head_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    norm = nn.LayerNorm(8)
    assert with_fast_products(norm) is norm
    small, linear = nn.Linear(8, 8), nn.Linear(512, 512)
    assert with_fast_products(small) is small
    assert with_fast_products(nn.Sequential(small, linear)).get_submodule("0") is small
    assert with_fast_products(linear) is not linear
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert with_fast_products(linear) is linear
    mar = small_mar().eval()
    assert marche_fx.transform(mar, compile=False).diffloss is mar.diffloss


@torch.no_grad()
@pytest.mark.usefixtures("products_by_onednn")
def test_a_head_that_is_compiled_stays_so() -> None:
    head: Any = nn.Sequential(nn.Linear(8, 8), nn.Tanh()).eval()
    wrapped: Any = torch.compile(head, backend="eager")
    assert with_fast_products(wrapped) is wrapped
    outer: Any = with_fast_products(nn.Sequential(wrapped, nn.Linear(8, 8)).eval())
    assert outer[0] is wrapped
    assert type(outer[1]) is Linear
    assert outer(torch.randn(2, 8)).shape == (2, 8)


class Projected(nn.Module):
    """A model whose loop, not its step, projects to a vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.project = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layer(x)
        return found


@torch.no_grad()
def test_any_child_can_be_named_a_head_and_replaced_later(products_by_onednn: list[int]) -> None:
    model = Projected().eval()
    optimized = marche_fx.transform(model, head="project")
    x = torch.randn(4, 16)
    torch.testing.assert_close(optimized.project(x), model.project(x))
    assert products_by_onednn == [4]
    assert list(optimized.state_dict()) == list(model.state_dict())
    optimized.project = nn.Linear(16, 7)
    assert optimized.project(x).shape == (4, 7)


def test_a_head_that_is_no_child_is_refused() -> None:
    with pytest.raises(ArgumentError, match="no child 'projection' to be a head; its children are layer, project"):
        marche_fx.transform(Projected().eval(), head="projection")

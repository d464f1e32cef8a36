"""What may happen to a model after it was transformed."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError, UnsupportedModelError
from marche_fx.lazy.tensor import resolved
from tests.around import EAGER, TOKENS, WIDTH, LowRank, X, captures, optimize, replace_linears, same, transformer
from tests.networks import Transformer


def replace_module(model: Transformer) -> None:
    model.head = nn.Linear(WIDTH, 5).eval()


def replace_by_another_kind(model: Transformer) -> None:
    model.norm = nn.Identity().eval()  # type: ignore[assignment]


def add_adapters(model: Transformer) -> None:
    replace_linears(model, LowRank)


def remove_bias(model: Transformer) -> None:
    model.head.bias = None  # type: ignore[assignment]


def reshape_weights(model: Transformer) -> None:
    model.head.weight, model.head.bias = nn.Parameter(torch.randn(5, WIDTH)), nn.Parameter(torch.randn(5))


def hook(model: Transformer) -> None:
    model.head.register_forward_hook(lambda module, args, output: output * 2)


def set_attribute(model: Transformer) -> None:
    model.norm.eps = 0.5


def shorten(model: Transformer) -> None:
    model.blocks = model.blocks[:0].eval()


CHANGES = [
    replace_module,
    replace_by_another_kind,
    add_adapters,
    remove_bias,
    reshape_weights,
    hook,
    set_attribute,
    shorten,
]


@pytest.mark.parametrize("change", CHANGES[:-1])
@torch.no_grad()
def test_the_next_session_sees_a_changed_model(change: Callable[[Transformer], None]) -> None:
    model = transformer()
    optimized = optimize(model)
    with marche_fx.decoding(optimized):
        before = model(X)
        assert same(optimized(X), before)
    assert isinstance(optimized, Transformer)
    change(optimized)
    with marche_fx.decoding(optimized):
        found = optimized(X).clone()
        assert torch.equal(found, model(X))
        assert found.shape != before.shape or not torch.equal(found, before)
    assert captures(optimized) == 1, "what was captured before is gone"


@torch.no_grad()
def test_a_model_left_without_attention_is_refused_in_the_next_session() -> None:
    model = transformer()
    optimized = optimize(model)
    optimized(X)
    shorten(model)
    with pytest.raises(UnsupportedModelError, match="no attention"):
        optimized(X)


class Configured(nn.Module):
    """A number of its own and one in a config."""

    class Config:
        scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.inner = transformer()
        self.factor = 1.0
        self.config = Configured.Config()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.factor * self.config.scale


@torch.no_grad()
def test_attributes_set_on_the_transformed_model_count() -> None:
    model = Configured().eval()
    expected = model(X)
    optimized: Any = optimize(model)
    assert torch.equal(optimized(X), expected)
    optimized.factor = 2.0
    assert torch.equal(optimized(X), 2 * expected)
    optimized.config.scale = 4.0
    assert torch.equal(optimized(X), 8 * expected)
    assert model.factor == 1.0, "the original is left alone"


@torch.no_grad()
def test_the_mode_set_on_the_transformed_model_counts() -> None:
    optimized = optimize(transformer().train())
    assert same(optimized.eval()(X), optimized(X))
    with pytest.raises(UnsupportedModelError, match="training mode"):
        optimized.train()(X)


@torch.no_grad()
def test_weights_moved_cast_replaced_or_written_are_those_used() -> None:
    model = transformer()
    optimized = optimize(model)
    with marche_fx.decoding(optimized):
        assert same(optimized(X), model(X))
        optimized.double()
        assert same(optimized(X.double()), model(X.double()))
        model.float()
        assert same(optimized(X), model(X))
        model.head.weight = nn.Parameter(torch.randn(3, WIDTH))
        assert same(optimized(X), model(X))
        model.head.weight.mul_(3)
        assert same(optimized(X), model(X))
        optimized.load_state_dict(transformer().state_dict())
        assert same(optimized(X), transformer()(X))


@torch.no_grad()
def test_rows_cached_before_a_weight_changed_stay_until_they_are_recomputed() -> None:
    model = transformer()
    optimized = optimize(model, EAGER)
    rows = torch.arange(TOKENS) < 4
    with marche_fx.decoding(optimized):
        before = resolved(optimized(X)).clone()
        model.head.bias.add_(1)
        found = optimized(X)
        assert torch.equal(found[:, rows], model(X)[:, rows])
        stale = (found.clone() == before).all(-1)
        assert stale.sum(1).tolist() == [TOKENS - 8, TOKENS - 8]
    with marche_fx.decoding(optimized):
        assert same(optimized(X), model(X))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, WIDTH)
        self.inner = transformer()
        self.inner.head = nn.Linear(WIDTH, 7, bias=False)
        self.inner.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.inner(self.embedding(ids))


@torch.no_grad()
def test_tied_weights_change_together_until_they_are_untied() -> None:
    model = Tied().eval()
    optimized = optimize(model)
    ids = torch.arange(2 * TOKENS).view(2, TOKENS) % 7
    assert same(optimized(ids), model(ids))
    model.embedding.weight.mul_(2)
    assert same(optimized(ids), model(ids))
    model.embedding.weight = nn.Parameter(torch.randn(7, WIDTH))
    assert same(optimized(ids), model(ids))


def test_a_transformed_model_is_neither_copied_nor_saved() -> None:
    optimized = optimize(transformer())
    with pytest.raises(ArgumentError, match="Copy the original"):
        copy.deepcopy(optimized)
    with pytest.raises(ArgumentError, match="state_dict"):
        torch.save(optimized, io.BytesIO())

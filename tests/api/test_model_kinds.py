"""Models with hooks, adapters, packed weights, compiled or wrapped: right, or refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx import UnsupportedModelError
from tests.around import MOVED, Around, LowRank, X, check, optimize, refused, replace_linears, transformer


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradients[0]


def test_custom_autograd_functions() -> None:
    check(Around(lambda model, x: Square.apply(model.inner(x))), ((X,), {}), ((MOVED,), {}))


@pytest.mark.parametrize("where", ["", "inner", "inner.head"])
def test_hooks_change_results_as_they_do_in_the_original(where: str) -> None:
    model = Around(lambda model, x: model.inner(x))
    model.get_submodule(where).register_forward_hook(lambda module, args, output: output * 2)
    model.get_submodule(where).register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    check(model, ((X,), {}), ((MOVED,), {}))


@pytest.mark.parametrize("where", ["", "inner"])
def test_models_that_are_compiled_already(where: str) -> None:
    model: Any = Around(lambda model, x: model.inner(x))
    if where:
        model.inner = torch.compile(model.inner, backend="eager")
    else:
        model = torch.compile(model, backend="eager")
    check(model, ((X,), {}), ((MOVED,), {}))
    in_place = Around(lambda model, x: model.inner(x))
    in_place.get_submodule(where).compile(backend="eager")
    check(in_place, ((X,), {}), ((MOVED,), {}))


@torch.no_grad()
def test_a_transformed_model_may_be_compiled() -> None:
    model = transformer()
    compiled = torch.compile(optimize(model), backend="eager")
    assert torch.equal(compiled(X).clone(), model(X))


def test_wrappers_for_several_devices_are_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"the model is wrapped in DataParallel.*model\.module"):
        optimize(nn.DataParallel(transformer()))
    inside = Around(lambda model, x: model.wrapped(x), wrapped=nn.DataParallel(transformer()))
    with pytest.raises(UnsupportedModelError, match="wrapped is wrapped in DataParallel"):
        optimize(inside)


class EightBit(nn.Module):
    """A linear layer whose weight is stored in eight bits."""

    weight: Tensor

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.register_buffer("weight", (base.weight * 100).round().to(torch.int8))
        self.bias = base.bias

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype) / 100, self.bias)


@pytest.mark.parametrize("kind", [LowRank, EightBit])
def test_linear_layers_with_adapters_or_in_eight_bits(kind: Callable[[nn.Linear], nn.Module]) -> None:
    check(replace_linears(transformer(), kind), ((X,), {}), ((MOVED,), {}))


@pytest.mark.filterwarnings("ignore")
def test_packed_weights_are_refused_by_name() -> None:
    model = torch.ao.quantization.quantize_dynamic(transformer(), {nn.Linear}).eval()
    refused(model, UnsupportedModelError, r"'blocks\.0\.attention\.qkv\._packed_params.*ScriptObject", X)


@torch.no_grad()
def test_an_encoder_with_padded_rows_and_a_fast_path_of_its_own() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval().requires_grad_(False)
    x, padded = torch.randn(2, 12, 16), torch.zeros(2, 12, dtype=torch.bool)
    padded[1, 8:] = True
    optimized = marche_fx.transform(model, refresh="exact", compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = model(x, src_key_padding_mask=padded)
    found = optimized(x, src_key_padding_mask=padded)
    torch.testing.assert_close(found[~padded], expected[~padded], rtol=1e-5, atol=1e-5)
    assert torch.backends.mha.get_fastpath_enabled()

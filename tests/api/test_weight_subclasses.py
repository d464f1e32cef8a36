"""Weights that are made of other tensors: quantised ones, as torchao's, and parametrised ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

import marche_fx
from marche_fx.api import captures as of_steps
from tests.around import EAGER, MOVED, X, captures, optimize, same, transformer

aten = torch.ops.aten


class Quantised(Tensor):
    """Rows of integers and a scale for each, held as one tensor."""

    integers: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, integers: Tensor, scale: Tensor) -> Quantised:
        made: Any = Tensor._make_wrapper_subclass(cls, integers.shape, dtype=scale.dtype, device=scale.device)
        made.integers, made.scale = integers, scale
        return made

    def __init__(self, integers: Tensor, scale: Tensor) -> None:
        pass

    @classmethod
    def of(cls, weight: Tensor) -> Quantised:
        scale = weight.detach().abs().amax(1, keepdim=True) / 127
        return cls((weight.detach() / scale).round().to(torch.int8), scale)

    def plain(self) -> Tensor:
        return self.integers.to(self.scale.dtype) * self.scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["integers", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, parts: dict[str, Tensor], context: None, size: Any, stride: Any) -> Quantised:
        return cls(parts["integers"], parts["scale"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if func in (aten.detach.default, aten.clone.default, aten.alias.default):
            return cls(func(args[0].integers), func(args[0].scale))
        return func(*[own.plain() if isinstance(own, cls) else own for own in args], **(kwargs or {}))


class ByFunction(Quantised):
    """Multiplied by a function of its own, as those of torchao."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            x, weight, *bias = args
            return F.linear(x, weight.integers.to(x.dtype), None) * weight.scale[:, 0] + (bias[0] if bias else 0)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def quantised(kind: type[Quantised]) -> Any:
    model = transformer()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(kind.of(module.weight), requires_grad=False)
    return model


def dequantised(model: Any) -> Any:
    plain = transformer()
    for own, module in zip(model.modules(), plain.modules()):
        if isinstance(module, nn.Linear):
            module.weight = nn.Parameter(own.weight.plain(), requires_grad=False)
            module.bias = own.bias
    return plain


KINDS = [Quantised, ByFunction]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
@torch.no_grad()
def test_quantised_weights_give_the_rows_of_the_weights_that_they_stand_for(
    kind: type[Quantised], compile: bool
) -> None:
    model = quantised(kind)
    optimized, plain = marche_fx.transform(model, refresh=EAGER, compile=compile), optimize(dequantised(model), EAGER)
    with marche_fx.decoding(optimized), marche_fx.decoding(plain):
        torch.testing.assert_close(optimized(X).clone(), model(X), rtol=1e-4, atol=1e-5)
        plain(X).clone()
        for row in (3, 4):
            torch.testing.assert_close(optimized(MOVED)[:, row], plain(MOVED)[:, row], rtol=1e-4, atol=1e-5)


def scale_in_place(model: Any) -> None:
    model.head.weight.scale.mul_(2)


def replace(model: Any) -> None:
    model.head.weight = nn.Parameter(type(model.head.weight).of(torch.randn(3, 8)), requires_grad=False)


def dequantise(model: Any) -> None:
    model.head.weight = nn.Parameter(model.head.weight.plain() * 2, requires_grad=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_session", [False, True])
@pytest.mark.parametrize("change", [scale_in_place, replace, dequantise])
@torch.no_grad()
def test_quantised_weights_that_change_are_those_used(
    change: Callable[[Any], None], in_session: bool, kind: type[Quantised]
) -> None:
    model = quantised(kind)
    optimized = optimize(model)
    with marche_fx.decoding(optimized):
        before = optimized(X).clone()
        if in_session:
            change(model)
            assert not torch.allclose(model(X), before)
            assert same(optimized(X), model(X))
    if not in_session:
        change(model)
        with marche_fx.decoding(optimized):
            assert not torch.allclose(model(X), before)
            assert same(optimized(X), model(X))


@torch.no_grad()
def test_a_capture_with_quantised_weights_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = quantised(Quantised)
    first, second = optimize(model), optimize(model)
    first(X)
    marche_fx.save_captures(first, tmp_path / "steps")
    assert marche_fx.load_captures(second, tmp_path / "steps")
    monkeypatch.setattr(of_steps, "make_plan", None)
    assert same(second(X), model(X))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2


@pytest.mark.parametrize("is_quantised", [False, True])
@torch.no_grad()
def test_parametrised_weights_are_read_at_every_call(is_quantised: bool) -> None:
    model = transformer()
    parametrize.register_parametrization(model.head, "weight", Doubled())
    held: Any = model.head.get_submodule("parametrizations.weight")
    if is_quantised:
        held.original = nn.Parameter(Quantised.of(held.original), requires_grad=False)
    optimized = optimize(model)
    for _ in range(2):
        with marche_fx.decoding(optimized):
            assert same(optimized(X), model(X))
        (held.original.scale if is_quantised else held.original).mul_(3)
    assert captures(optimized) == 1

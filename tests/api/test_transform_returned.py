"""The model that `transform` returns."""

from __future__ import annotations

import functools
import warnings
from types import MethodType

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.models.mar import MAR
from tests.api.mars import draws, random_mar
from tests.around import FULL, Around, X
from tests.networks import Transformer


@torch.no_grad()
def test_the_model_returned_is_the_same_model_to_its_user() -> None:
    mar = random_mar(side=4)
    optimized = marche_fx.transform(mar, refresh=FULL, compile=False)
    assert type(optimized) is MAR
    assert all(a is b for a, b in zip(optimized.parameters(), mar.parameters(), strict=True))
    assert list(optimized.state_dict()) == list(mar.state_dict())
    arguments = draws(mar, 1, steps=2)
    optimized.sample_tokens(**arguments)
    # Weights changed later, through either of the two, are those that are used.
    for parameter in mar.parameters():
        parameter.mul_(1.1)
    assert torch.allclose(optimized.sample_tokens(**arguments), mar.sample_tokens(**arguments), rtol=1e-3, atol=1e-4)
    optimized.double()
    assert next(mar.parameters()).dtype is torch.float64
    found = optimized.sample_tokens(**arguments)
    assert found.dtype is torch.float64
    assert torch.allclose(found, mar.sample_tokens(**arguments), rtol=1e-4, atol=1e-5)
    assert not hasattr(mar, "_marche_fx")


@torch.no_grad()
def test_every_new_kind_of_argument_is_captured_once_and_many_warn() -> None:
    model = Around(lambda model, x, power: model.inner(x) ** power)
    optimized = marche_fx.transform(model, compile=False)
    step = optimization_of(optimized).steps["forward"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for power in (1, 2, 1, 2):
            assert torch.equal(optimized(X, power), model(X, power))
        assert len(step.programs) == 2
        for power in range(3, 8):
            optimized(X, power)
    with pytest.warns(UserWarning, match="captured for 8 kinds of arguments"):
        optimized(X, 8)


@torch.no_grad()
def test_a_forgotten_session_is_exact_and_warns_once() -> None:
    model = Transformer(6, 8, 2, depth=1).eval()
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.0, warmup=0), compile=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for seed in range(6):
            x = torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(optimized(x), model(x))
    assert len([warning for warning in caught if "decoding" in str(warning.message)]) == 1


INSIDE: list[nn.Module] = []
"""Models whose method ran."""


class Replaced(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Transformer(6, 8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)

    def decode(self, x: Tensor) -> Tensor:
        return self(x).argmax(-1)


@torch.no_grad()
def test_methods_put_on_the_instance_are_those_of_the_copy() -> None:
    model, x = Replaced().eval(), torch.randn(2, 6, 8)
    INSIDE.clear()

    def mine(self: nn.Module, x: Tensor) -> Tensor:
        INSIDE.append(self)
        return self(x).argmin(-1)

    model.decode = MethodType(mine, model)  # type: ignore[method-assign]
    vars(model)["again"] = functools.partial(MethodType(mine, model))
    optimized = marche_fx.transform(model, refresh="exact", loop="decode", compile=False)
    assert torch.equal(optimized.decode(x), model(x).argmin(-1))
    assert torch.equal(resolved(vars(optimized)["again"](x)), model(x).argmin(-1))
    assert [optimized, optimized] == INSIDE
    step = optimization_of(optimized).steps["forward"]
    (program,) = step.programs
    optimized.decode(x)
    assert step.programs[0] is program, "nothing seems to have changed in between"


@torch.no_grad()
def test_a_step_put_on_the_instance_is_the_one_that_is_captured() -> None:
    model, x = Replaced().eval(), torch.randn(2, 6, 8)
    model.forward = MethodType(lambda self, x: 2 * self.body(x), model)  # type: ignore[method-assign]
    optimized = marche_fx.transform(model, refresh="exact", compile=False)
    with marche_fx.decoding(optimized):
        assert torch.equal(optimized(x) + 0, 2 * model.body(x))

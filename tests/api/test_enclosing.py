"""`torch.compile` around a transformed model is told of, and changes nothing."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx

X = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(0))


class Around(nn.Module):
    """One that a loop calls, with a step inside."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        return self.step(x) + 1


def layer() -> nn.Module:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval().requires_grad_(False)


def messages(call: Any) -> list[str]:
    with warnings.catch_warnings(record=True, action="always") as told:
        call(X)
    return [str(own.message) for own in told if issubclass(own.category, UserWarning)]


@pytest.mark.slow
@torch.no_grad()
def test_compile_around_a_transformed_model_is_told_of_once() -> None:
    model = layer()
    compiled = torch.compile(marche_fx.transform(model), backend="eager")
    told = messages(compiled)
    assert sum("transform compiles a step itself" in own for own in told) == 1
    assert "transform compiles" not in "".join(messages(compiled))
    torch.testing.assert_close(compiled(X).clone(), model(X))


@pytest.mark.slow
@torch.no_grad()
def test_a_step_inside_of_compiled_code_is_told_of() -> None:
    compiled = torch.compile(Around(marche_fx.transform(layer())), backend="eager")
    assert "transform compiles a step itself" in "".join(messages(compiled))


@torch.no_grad()
def test_nothing_is_said_where_nothing_is_compiled() -> None:
    assert not messages(Around(marche_fx.transform(layer(), compile=False)))
    assert not messages(torch.compile(marche_fx.transform(layer(), compile=False), backend="eager"))

"""Numbers that a step reads off its arguments by `item` are inputs of the region, as tensors are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import marche_fx
from tests.around import EAGER, TOKENS, Around, X, active, captures, same


def scaled(model: Any, x: Tensor, scale: Tensor) -> Tensor:
    return model.inner(x * scale.item())


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
@torch.no_grad()
def test_a_number_that_changes_moves_every_token_and_costs_no_capture(compile: bool) -> None:
    model = Around(scaled)
    optimized = marche_fx.transform(model, refresh=EAGER, compile=compile)
    with marche_fx.decoding(optimized):
        for value in (2.0, 2.0, 3.0):
            found = optimized(X, torch.tensor(value))
            if value == 3.0:
                torch.testing.assert_close(found.clone(), model(X, torch.tensor(value)), rtol=1e-4, atol=1e-5)
            else:
                found[:, 3].clone()
    assert captures(optimized) == 1
    assert [own == TOKENS for own in active(optimized)] == [True, False, True]


@torch.no_grad()
def test_a_number_may_be_computed_of_a_token_tensor() -> None:
    model = Around(lambda model, x: model.inner(x / x.abs().max().item()))
    optimized = marche_fx.transform(model, refresh="exact", compile=False)
    with marche_fx.decoding(optimized):
        for x in (X, 3 * X, X):
            assert same(optimized(x), model(x))
    assert captures(optimized) == 1

"""Steps that draw random numbers: refused by name and line, unless the numbers decide nothing."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from marche_fx import EquivalenceError, UnsupportedModelError
from tests.around import WIDTH, Around, X, check, optimize, refused, same

RANDOM: dict[str, Callable[..., Tensor]] = {
    "rand": lambda x: x + torch.rand(WIDTH),
    "randn_like": lambda x: x + torch.randn_like(x),
    "normal": lambda x: x + torch.empty(WIDTH).normal_(),
    "native_dropout": lambda x: F.dropout(x, 0.1, training=True),
    "multinomial": lambda x: x + x.softmax(-1)[:, 0].multinomial(1)[:, None],
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.1),
}


@pytest.mark.parametrize("operator", RANDOM)
def test_random_operators_are_refused_by_name_and_line(operator: str) -> None:
    model = Around(lambda model, x: model.inner(RANDOM[operator](x)))
    refused(model, UnsupportedModelError, rf"random numbers in aten\.{operator}.*\(around\.py:\d+\)", X)


DRAWN_ELSEWHERE: dict[str, Callable[[], float]] = {
    "a number": random.random,
    "one of two": lambda: random.choice((0.0, 1.0)),
    "of NumPy": lambda: float(np.random.rand() < 0.5),
}


@pytest.mark.parametrize("drawn", DRAWN_ELSEWHERE)
@pytest.mark.parametrize("seed", range(3))
def test_random_numbers_from_elsewhere_are_refused_also_where_two_are_equal(drawn: str, seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    model = Around(lambda model, x: model.inner(x) + DRAWN_ELSEWHERE[drawn]())
    refused(model, EquivalenceError, r"draws numbers from random or numpy\.random, and returns one result", X)


def test_a_step_that_draws_numbers_and_ignores_them_is_served() -> None:
    def forward(model: Any, x: Tensor) -> Tensor:
        is_dropped = random.random() < 0.5
        return x if is_dropped and model.training else model.inner(x)

    check(Around(forward).eval(), ((X,), {}), ((X,), {}))


DECIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "never": lambda x: torch.where(torch.rand(2, X.shape[1], 1) < 0.0, 0.0, x),
    "always": lambda x: x * (torch.rand_like(x) < 1.0),
    "kept": lambda x: x * (torch.rand(2, 1, 1) >= 0),
    "dropped": lambda x: x.masked_fill(torch.rand_like(x) > 1, 0.0),
}


@pytest.mark.parametrize("name", DECIDED)
@torch.no_grad()
def test_draws_that_decide_nothing_are_none(name: str) -> None:
    model = Around(lambda model, x: model.inner(DECIDED[name](x)))
    assert same(optimize(model)(X), model(X))


def test_draws_that_decide_something_stay_refused() -> None:
    model = Around(lambda model, x: model.inner(x * (torch.rand_like(x) < 0.5)))
    refused(model, UnsupportedModelError, r"random numbers in aten\.rand", X)

"""Comparing the rewritten step with the original."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx import EquivalenceError
from marche_fx.runtime.verify import TOLERANCE, check_equal
from tests.loops import models
from tests.loops.loops import words

X = torch.linspace(-2, 2, 24).view(2, 3, 4)


def test_a_cast_on_the_way_explains_more() -> None:
    x = torch.ones(3, dtype=torch.float64)
    check_equal("step", x + 1e-5, x, rounded_to={torch.float32})
    with pytest.raises(EquivalenceError):
        check_equal("step", x + 1e-5, x)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rounding_passes_and_more_does_not(dtype: torch.dtype) -> None:
    x = X.to(dtype)
    largest = float(x.abs().max())
    check_equal("step", x + 0.5 * TOLERANCE[dtype] * largest, x)
    with pytest.raises(EquivalenceError):
        check_equal("step", x + 3 * TOLERANCE[dtype] * largest, x)


def test_the_worst_element_is_named() -> None:
    wrong = X.clone()
    wrong[1, 2, 0] += 0.01
    wrong[0, 1, 3] += 1
    with pytest.raises(EquivalenceError, match=r"result 1 of step .* at \(0, 1, 3\)"):
        check_equal("step", (X, wrong), (X, X))


@pytest.mark.parametrize(
    ("ours", "original"),
    [
        (X, X[:1]),
        (X, X.double()),
        (torch.full_like(X, float("nan")), X),
        (X, torch.full_like(X, float("nan"))),
        (torch.tensor([1, 2]), torch.tensor([1, 3])),
        ((X, X), (X,)),
        ((X, 1), (X, 2)),
    ],
)
def test_any_other_difference_is_an_error(ours: Tensor, original: Tensor) -> None:
    with pytest.raises(EquivalenceError):
        check_equal("step", ours, original)


def test_equal_infinities_and_nans_pass() -> None:
    x = X.clone()
    x[0, 0] = float("-inf")
    x[1, 1] = float("nan")
    check_equal("step", x.clone(), x)
    check_equal("step", torch.empty(0), torch.empty(0))


class Traced(models.Words):
    """Computes something else where it is traced, as code that skips a mask does when it is not."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids) * (2 if torch.compiler.is_compiling() else 1)


@torch.no_grad()
def test_a_step_that_asks_whether_it_is_traced_is_told_so() -> None:
    optimized = marche_fx.transform(Traced().eval().requires_grad_(False), compile=False)
    with pytest.raises(EquivalenceError, match=r"asks whether it is traced, as by torch\.compiler\.is_compiling"):
        optimized(words())

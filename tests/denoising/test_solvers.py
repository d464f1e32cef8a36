"""Solvers: the formulas of their papers, and their order on a Gaussian whose flow is known."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marche_fx.denoising.solvers import SOLVERS, PredictStart, ddim, dpm_solver
from tests.denoising.gaussians import Gaussian

GAUSSIAN = Gaussian(0.7, 0.4)
signals = st.sets(st.floats(0.01, 0.99), min_size=2, max_size=12).map(lambda own: sorted(own, reverse=True))


def evenly_in_log_ratio(steps: int, least: float = -5.0, most: float = 6.0) -> list[float]:
    """Signals, the most first, evenly spaced in the logarithm of signal over noise."""
    return [1 / (1 + math.exp(-(most + (least - most) * place / steps))) for place in range(steps + 1)]


def error(name: str, steps: int) -> float:
    signal, x = evenly_in_log_ratio(steps), torch.linspace(-2, 2, 9, dtype=torch.float64)
    found = SOLVERS[name](lambda x, index: GAUSSIAN.start(x, signal[index]), signal, x)
    exact = GAUSSIAN.start(GAUSSIAN.flowed(x, signal[-1], signal[0]), signal[0])
    return float((found - exact).abs().max())


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpm++2m", 2)])
def test_a_solver_converges_with_its_order(name: str, order: int) -> None:
    errors = [error(name, steps) for steps in (64, 128, 256, 512)]
    orders = [math.log2(before / after) for before, after in itertools.pairwise(errors)]
    assert orders == pytest.approx([order] * 3, abs=0.15)


def test_the_second_order_is_worth_it_at_few_steps() -> None:
    assert error("dpm++2m", 12) < error("ddim", 12) / 3


def curved(x: Tensor, index: int) -> Tensor:
    """A prediction that is linear in nothing."""
    return torch.sin(2 * x + index)


def ddim_by_noise(predict_start: PredictStart, signal: Sequence[float], x: Tensor) -> Tensor:
    """Equation 12 of arXiv 2010.02502 as it stands there, with alpha for ``signal`` and sigma 0."""
    alphas = [1.0, *signal]
    for t in range(len(signal), 0, -1):
        start = predict_start(x, t - 1)
        noise = (x - math.sqrt(alphas[t]) * start) / math.sqrt(1 - alphas[t])
        x = math.sqrt(alphas[t - 1]) * start + math.sqrt(1 - alphas[t - 1]) * noise
    return x


def dpm_as_published(predict_start: PredictStart, signal: Sequence[float], x: Tensor) -> Tensor:
    """Algorithm 2 of arXiv 2211.01095 in its own letters, from t_0 = T to t_M; then the start predicted there."""
    alpha, sigma = ([math.sqrt(a if is_alpha else 1 - a) for a in reversed(signal)] for is_alpha in (True, False))
    lambdas = [math.log(a / s) for a, s in zip(alpha, sigma)]
    steps = len(signal) - 1
    starts = [predict_start(x, steps)]
    for i in range(1, steps + 1):
        h = lambdas[i] - lambdas[i - 1]
        if i == 1:
            d = starts[0]
        else:
            r = (lambdas[i - 1] - lambdas[i - 2]) / h
            d = (1 + 1 / (2 * r)) * starts[i - 1] - 1 / (2 * r) * starts[i - 2]
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * (math.exp(-h) - 1) * d
        starts.append(predict_start(x, steps - i))
    return starts[-1]


@given(signal=signals)
def test_ddim_is_its_published_formula(signal: list[float]) -> None:
    x = torch.tensor([-1.0, 0.2, 1.5], dtype=torch.float64)
    torch.testing.assert_close(ddim(curved, signal, x), ddim_by_noise(curved, signal, x), rtol=1e-6, atol=1e-6)


@given(steps=st.integers(1, 12), least=st.floats(-6, -1), most=st.floats(1, 8))
def test_the_dpm_solver_is_its_published_algorithm(steps: int, least: float, most: float) -> None:
    signal, x = evenly_in_log_ratio(steps, least, most), torch.tensor([-1.0, 0.2, 1.5], dtype=torch.float64)
    torch.testing.assert_close(dpm_solver(curved, signal, x), dpm_as_published(curved, signal, x), rtol=1e-6, atol=1e-6)


def test_the_dpm_solver_minds_steps_of_different_lengths() -> None:
    signal, x = [0.99, 0.9, 0.5, 0.45, 0.02], torch.tensor([0.3], dtype=torch.float64)
    torch.testing.assert_close(dpm_solver(curved, signal, x), dpm_as_published(curved, signal, x))


@pytest.mark.parametrize("name", list(SOLVERS))
def test_a_solver_asks_once_at_each_timestep_the_last_first(name: str) -> None:
    asked: list[int] = []

    def predict(x: Tensor, index: int) -> Tensor:
        asked.append(index)
        return x

    SOLVERS[name](predict, [0.9, 0.5, 0.2, 0.1], torch.zeros(1))
    assert asked == [3, 2, 1, 0]

"""eMIGM's sampling: its solver, its timesteps, and where it guides."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from marche_fx.bench import Settings, mar_workload, parse_variants
from marche_fx.bench.candidates import make_candidates
from marche_fx.models.diffusion import cosine_betas
from marche_fx.rivals import RIVALS, with_sampler
from marche_fx.rivals.emigm import ThirdOrderSolver, is_guided, level, orders_of, settings_for, third_order
from tests.denoising.gaussians import Gaussian
from tests.denoising.heads import CONDITION, bundled_head, calls_of, normal
from tests.evaluate.tiny import tiny_garments

SIGNAL = torch.cumprod(1 - cosine_betas(), 0)
GAUSSIAN = Gaussian(0.7, 0.4)


def curved(x: Tensor, t: Tensor) -> Tensor:
    """Noise and position ``[R, 2C]`` that are linear in nothing."""
    noise = torch.sin(2 * x + t[:, None] / 300)
    return torch.cat([noise, noise], -1)


def as_published(evaluations: int, x: Tensor) -> Tensor:
    """DPM-Solver++ in single steps, in the variables of its paper's code: time in 0..1, log alpha interpolated."""
    log_alphas = 0.5 * np.log(SIGNAL.numpy())
    lambdas = log_alphas - 0.5 * np.log1p(-np.exp(2 * log_alphas))
    log_alphas = log_alphas[lambdas >= -5.1]
    count = len(log_alphas)
    times = np.arange(1, count + 1) / count

    def lambda_at(t: float) -> float:
        own = np.interp(t, times, log_alphas)
        return float(own - 0.5 * np.log(1 - np.exp(2 * own)))

    def time_at(value: float) -> float:
        return float(np.interp(-0.5 * np.logaddexp(0, -2 * value), log_alphas[::-1], times[::-1]))

    def alpha(t: float) -> float:
        return float(np.exp(np.interp(t, times, log_alphas)))

    def sigma(t: float) -> float:
        return math.sqrt(1 - alpha(t) ** 2)

    def model(x: Tensor, t: float) -> Tensor:
        label = torch.full((len(x),), (t - 1 / count) * 1000, dtype=torch.float64)
        return (x - sigma(t) * curved(x, label).chunk(2, -1)[0]) / alpha(t)

    third = evaluations // 3
    orders = {0: [3] * (third - 1) + [2, 1], 1: [3] * third + [1], 2: [3] * third + [2]}[evaluations % 3]
    outer = [time_at(own) for own in np.linspace(lambda_at(1.0), lambda_at(1 / count), len(orders) + 1)]
    for order, (s, t) in zip(orders, itertools.pairwise(outer)):
        h = lambda_at(t) - lambda_at(s)
        m0 = model(x, s)
        decayed = sigma(t) / sigma(s) * x - alpha(t) * math.expm1(-h) * m0
        if order == 1:
            x = decayed
            continue
        r1, r2 = (1 / 2, 0.0) if order == 2 else (1 / 3, 2 / 3)
        s1 = time_at(lambda_at(s) + r1 * h)
        m1 = model(sigma(s1) / sigma(s) * x - alpha(s1) * math.expm1(-r1 * h) * m0, s1)
        if order == 2:
            x = decayed - 0.5 / r1 * alpha(t) * math.expm1(-h) * (m1 - m0)
            continue
        s2 = time_at(lambda_at(s) + r2 * h)
        phi22 = math.expm1(-r2 * h) / (r2 * h) + 1
        x2 = sigma(s2) / sigma(s) * x - alpha(s2) * math.expm1(-r2 * h) * m0 + r2 / r1 * alpha(s2) * phi22 * (m1 - m0)
        x = decayed + alpha(t) * (math.expm1(-h) / h + 1) / r2 * (model(x2, s2) - m0)
    return x


@given(evaluations=st.integers(4, 20))
@settings(max_examples=17, deadline=None)
def test_it_equals_the_published_solver(evaluations: int) -> None:
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).reshape(4, 3)

    def denoiser(x: Tensor, t: Tensor) -> Tensor:
        return curved(x, t.double())

    found = ThirdOrderSolver(SIGNAL, evaluations).sample(denoiser, x[None])
    torch.testing.assert_close(found, as_published(evaluations, x), rtol=1e-4, atol=1e-4)


def test_a_step_of_three_evaluations_is_of_the_third_order() -> None:
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)

    def error(length: float) -> float:
        def start(x: Tensor, ratio: float) -> Tensor:
            return GAUSSIAN.start(x, level(ratio) ** 2)

        found = third_order(start, x, -0.4, length)
        exact = GAUSSIAN.flowed(x, level(-0.4) ** 2, level(-0.4 + length) ** 2)
        return float((found - exact).abs().max())

    errors = [error(length) for length in (0.4, 0.2, 0.1, 0.05)]
    orders = [math.log2(before / after) for before, after in itertools.pairwise(errors)]
    # What one step is off by is of one order more than the solver.
    assert orders == pytest.approx([4] * 3, abs=0.3)


@pytest.mark.parametrize(("of", "evaluations"), [(16, 8), (64, 14), (128, 14)])
def test_a_token_takes_eight_evaluations_or_fourteen(of: int, evaluations: int) -> None:
    head, rows = bundled_head(100), 3
    own = with_sampler(head, RIVALS["emigm"](head.gen_diffusion)(of // 2, of))
    with torch.no_grad():
        calls = calls_of(head, lambda: own.sample(normal(2 * rows, CONDITION), cfg=3.0))
        unguided = calls_of(head, lambda: own.sample(normal(rows, CONDITION), cfg=1.0))
    assert [count for _, count in calls] == [2 * rows] * evaluations
    assert [count for _, count in unguided] == [rows] * evaluations
    # The last timestep with enough signal, stretched as its code does: 998.99.
    assert calls[0][0] == 998
    assert [time for time, _ in calls] == sorted((time for time, _ in calls), reverse=True)


def test_orders_add_up() -> None:
    assert orders_of(8) == [3, 3, 2]
    assert orders_of(9) == [3, 3, 2, 1]
    assert all(sum(orders_of(own)) == own for own in range(4, 40))


def test_guidance_holds_in_a_part_of_the_decoding() -> None:
    """As linspace(1, 0, T + 1) has it, of which a step ends at the next."""
    for of in (16, 64, 128):
        own, ends = settings_for(of), np.linspace(1, 0, of + 1)[1:]
        assert [is_guided(step, of) for step in range(of)] == [bool(own.low < s <= own.high) for s in ends]
    assert [step for step in range(16) if is_guided(step, 16)] == [11, 12, 13]


def test_outside_of_that_part_the_unconditional_half_is_not_computed() -> None:
    workload = mar_workload(tiny_garments(), 2, 3.0, 16)
    [candidate] = make_candidates(workload, parse_variants(["emigm"], []), Settings(steps=16))
    own = candidate.workload
    assert [step.samples for step in own.steps] == [4 if is_guided(number, 16) else 2 for number in range(16)]
    assert [step.cfg for step in own.steps] == [3.0 if is_guided(number, 16) else 1.0 for number in range(16)]
    for step, whole in zip(own.steps, workload.steps):
        assert step.read * 4 == whole.read * step.samples

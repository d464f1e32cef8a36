"""The energy distance, against draws whose distance is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from marche_fx.tuning.energy import between_numbers, distance_between


def draws(mean: float = 0.0, deviation: float = 1.0, seed: int = 0, count: int = 40) -> Tensor:
    """``[K, R, C]`` of a normal distribution in one dimension."""
    generator = torch.Generator().manual_seed(seed)
    return mean + deviation * torch.randn(count, 400, 1, generator=generator, dtype=torch.float64)


def test_equal_distributions_have_none_and_equal_draws_less_than_none() -> None:
    found = distance_between(draws(seed=1), draws(seed=2))
    assert abs(found.energy) < 3 * found.energy_error
    assert found.spread == pytest.approx(1, abs=0.03)
    same = distance_between(draws(), draws())
    assert same.energy == pytest.approx(0, abs=1e-12), "draws of one number do not count"
    assert same.shift == 0


def test_a_shift_is_as_far_as_it_is_written_of_normals() -> None:
    shift = 1.0
    found = distance_between(draws(shift, seed=1), draws(seed=2))
    # E|X - Y| of normals at a distance d, deviation s: s sqrt(2/pi) exp(-d^2/2s^2) + d erf(d / s sqrt 2), s = sqrt 2.
    across = torch.tensor(2.0).sqrt() * (2 / torch.pi) ** 0.5 * torch.exp(torch.tensor(-0.25)) + torch.erf(
        torch.tensor(0.5)
    )
    within = 2 / torch.pi**0.5
    assert found.energy == pytest.approx(float(2 * across - 2 * within) / within, abs=0.03)
    assert found.shift == pytest.approx(shift, abs=0.05)


def test_a_narrower_distribution_has_less_spread() -> None:
    found = distance_between(draws(deviation=0.5, seed=1), draws(seed=2))
    assert found.spread == pytest.approx(0.5, abs=0.02)
    assert found.energy > 5 * found.energy_error


def test_draws_of_one_number_are_left_out() -> None:
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    by_hand = [
        sum(float((x[row, i] - x[row, j]).norm()) for i in range(3) for j in range(3) if i != j) / 6 for row in range(2)
    ]
    assert between_numbers(x, x).tolist() == pytest.approx(by_hand)

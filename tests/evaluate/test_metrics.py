"""Closed forms, and what an interval promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from marche_fx.evaluate.metrics import Manifold, frechet, precision_and_recall, resampled_distances
from marche_fx.models import frechet_distance


def gaussian(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


# Precision and recall


def measured(real: Tensor, generated: Tensor, neighbours: int = 3) -> tuple[float, float]:
    return precision_and_recall(Manifold.of(real, neighbours), Manifold.of(generated, neighbours))


def test_equal_sets_have_precision_and_recall_one() -> None:
    features = gaussian(30, 4, 0)
    assert measured(features, features) == (1, 1)


def test_distant_sets_have_none() -> None:
    features = gaussian(30, 4, 0)
    assert measured(features, features + 100) == (0, 0)


def test_on_a_line_the_balls_are_those_counted_by_hand() -> None:
    # The third neighbours of 0, 1, 2, 3 are 3, 2, 2, 3 away: together the balls reach from -3 to 6.
    real = column(0, 1, 2, 3)
    generated = column(-3.5, -2.5, 6, 20)
    precision, recall = measured(real, generated)
    assert precision == 0.5
    # The third neighbours of the generated ones are 23.5, 22.5, 14 and 23.5 away: they cover all real ones.
    assert recall == 1
    # The nearest of 6 is 8.5 away.
    assert measured(real, generated, neighbours=1) == (0, 1)


def test_one_mode_of_two_is_precise_and_recalls_half() -> None:
    left, right = gaussian(40, 3, 0), gaussian(40, 3, 1) + 50
    precision, recall = measured(torch.cat([left, right]), left)
    assert (precision, recall) == (1, 0.5)


# The bootstrap


def test_resamples_distances_are_those_of_drawing_rows_again() -> None:
    features, other = 2 * gaussian(40, 3, 0) + 1, gaussian(60, 3, 1)
    mean, covariance = other.mean(0), other.T.cov()
    found = resampled_distances(features, mean, covariance, 120, seed=5)
    generator = torch.Generator().manual_seed(5)
    expected = []
    for size in (50, 50, 20):
        for rows in torch.randint(40, (size, 40), generator=generator):
            own = features[rows]
            expected.append(frechet_distance(own.mean(0), own.T.cov(), mean, covariance))
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_the_interval_holds_the_distance_of_known_gaussians_about_as_often_as_it_says() -> None:
    width, count, shift, scale = 4, 400, 0.5, 1.5
    true = width * (shift**2 + (scale - 1) ** 2)
    held = 0
    for seed in range(40):
        features = scale * gaussian(count, width, seed) + shift
        found = frechet(features, torch.zeros(width), torch.eye(width), resamples=200).interval
        assert found.low < found.estimate < found.high
        held += found.low <= true <= found.high
    assert held >= 34


def test_resamples_lie_above_the_estimate_so_their_own_quantiles_would_not_hold_it() -> None:
    features = gaussian(100, 16, 0)
    mean, covariance = torch.zeros(16).double(), torch.eye(16).double()
    found = frechet(features, mean, covariance, resamples=200)
    assert resampled_distances(features, mean, covariance, 200, 0).quantile(0.025) > found.estimate


def test_equal_seeds_give_equal_intervals() -> None:
    features = gaussian(50, 3, 0)
    first, again, other = (
        frechet(features, torch.zeros(3), torch.eye(3), resamples=100, seed=seed).interval for seed in (1, 1, 2)
    )
    assert first == again
    assert first.estimate == other.estimate
    assert first != other


def test_images_of_the_same_draws_tell_smaller_differences() -> None:
    mean, covariance = torch.zeros(3), torch.eye(3)
    found = []
    for seed in range(40):
        drawn, other = gaussian(300, 3, seed) + 1, 0.1 * gaussian(300, 3, 100 + seed)
        found.append([frechet(own, mean, covariance, resamples=200) for own in (drawn, 1.1 * drawn + other)])
    true = sum(worse.estimate - better.estimate for better, worse in found) / len(found)
    intervals = [(worse - better).interval for better, worse in found]
    assert sum(own.low <= true <= own.high for own in intervals) >= 34
    assert all(own.low > 0 for own in intervals)
    # Apart, the intervals of the two would often not tell which is better.
    assert any(better.interval.high > worse.interval.low for better, worse in found)

"""Judges, and how sure they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marche_fx import ArgumentError
from marche_fx.evaluate import FrechetJudge
from marche_fx.tuning.judging import Judge, NumberJudge, judge_of


def test_a_function_is_a_judge_and_anything_else_is_refused() -> None:
    assert isinstance(judge_of(float), NumberJudge)
    own = FrechetJudge(lambda images: images, torch.zeros(2), torch.eye(2))
    assert isinstance(own, Judge)
    assert judge_of(own) is own
    wrong: Any = 3
    with pytest.raises(ArgumentError, match="judge must be a function"):
        judge_of(wrong)


def values(seed: int, count: int) -> list[torch.Tensor]:
    return list(torch.randn(count, 1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


@pytest.mark.parametrize("count", [2, 4, 12])
def test_a_mean_lies_in_its_interval_as_often_as_it_should(count: int) -> None:
    judge = NumberJudge(float)
    inside = [own.low <= 0 <= own.high for seed in range(300) for own in [judge.spread(values(seed, count)).interval]]
    # 95%, and of two batches two resamples in four are of one of them, so that the quantile is the widest there is.
    assert 0.91 <= sum(inside) / len(inside) <= (1.0 if count < 4 else 0.99)


def test_what_two_models_share_leaves_their_difference() -> None:
    judge, shared = NumberJudge(float), values(1, 6)
    difference = (judge.spread([own + 0.5 for own in shared]) - judge.spread(shared)).interval
    assert difference.low == pytest.approx(0.5)
    assert difference.high == pytest.approx(0.5)


def test_one_batch_says_nothing_about_others() -> None:
    with pytest.raises(ArgumentError, match="two seeds"):
        NumberJudge(float).spread(values(0, 1))


def test_the_frechet_distance_is_that_of_all_batches_together() -> None:
    generator = torch.Generator().manual_seed(0)
    judge = FrechetJudge(lambda images: 2 * images, torch.zeros(3), torch.eye(3))
    images = torch.randn(4, 30, 3, generator=generator)
    batches = [judge.statistics(own) for own in images]
    one = judge.spread([judge.statistics(images.flatten(0, 1))])
    assert judge.spread(batches).estimate == pytest.approx(one.estimate)
    # Of a normal with deviation 2: the mean's square, and (2 - 1)^2 in each dimension.
    assert one.estimate == pytest.approx(3, abs=0.6)

"""What a user is told of generations that end with the policy's warm-up."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import InterleavedRefresh, RefreshPolicy, SelectiveRefresh, StalenessRefresh
from marche_fx.lazy.tensor import resolved
from tests.loops import models
from tests.loops.loops import reveal, words
from tests.runtime.telling import made


class Short(models.Words):
    """With a loop of its own of as many calls as are asked for."""

    def sample(self, steps: int, rows: int = 4) -> Tensor:
        ids = words()
        for number in range(steps):
            resolved(self(ids)[:, torch.arange(rows)])
            ids = reveal(ids, number)
        return ids


@torch.no_grad()
def told_of_generations(
    model: nn.Module, *arguments: Any, generations: int = 2, around: bool = False, **options: Any
) -> list[list[str]]:
    """What is warned of in each of some generations by the model's loop, in sessions ``around`` it or its own."""
    optimized: Any = marche_fx.transform(model, compile=False, loop=None if around else "sample", **options)
    found = []
    for _ in range(generations):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with marche_fx.decoding(optimized) if around else contextlib.nullcontext():
                optimized.sample(*arguments)
        found.append([str(own.message) for own in caught if issubclass(own.category, UserWarning)])
    return found


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_a_generation_that_ends_with_the_warm_up_is_told_of_once(steps: int) -> None:
    (message,), later = told_of_generations(made(Short), steps, *(64,) * (steps > 3))
    assert not later
    assert message.startswith(f"100% of the rows of Short.forward were computed in {steps} calls")
    if steps > 3:
        assert "the loop reads nearly every row at test_warmup_advice.py:" in message
        assert message.endswith(
            "Besides, SelectiveRefresh() computes the first 3 calls of a generation in full: give the policy warmup=1, "
            "too"
        )
    else:
        assert "SelectiveRefresh() computes the first 3 calls of a generation in full, and these were most" in message
        assert message.endswith("pass refresh=SelectiveRefresh(warmup=1)")


def test_a_session_that_ends_with_the_warm_up_is_told_of_at_the_second_one() -> None:
    first, (message,), third = told_of_generations(made(Short), 3, around=True, generations=3)
    assert not first
    assert "computes the first 3 calls of a generation in full" in message
    assert not third


@pytest.mark.parametrize(("steps", "refresh"), [(1, None), (3, "exact"), (3, SelectiveRefresh(warmup=1)), (12, None)])
def test_without_a_call_in_warm_up_that_could_reuse_another_nothing_is_said(steps: int, refresh: Any) -> None:
    assert told_of_generations(made(Short), steps, refresh=refresh) == [[], []]


IN_FULL = [
    SelectiveRefresh(1.0),
    SelectiveRefresh([1.0, 1]),
    StalenessRefresh(every=1),
    InterleavedRefresh(period=1),
    StalenessRefresh(0.1) + StalenessRefresh(1.0),
]


@pytest.mark.parametrize("refresh", IN_FULL, ids=repr)
def test_who_asks_for_all_tokens_is_not_advised_to_begin_sooner(refresh: RefreshPolicy) -> None:
    assert told_of_generations(made(Short), 3, refresh=refresh) == [[], []]


@torch.no_grad()
def test_a_short_generation_of_a_model_that_gains_by_longer_ones_is_no_news() -> None:
    optimized: Any = marche_fx.transform(made(Short), loop="sample", compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steps in (12, 3, 2):
            optimized.sample(steps)


def test_of_a_sum_of_policies_the_longest_warm_up_is_told() -> None:
    policy = SelectiveRefresh(0.05, warmup=1) + StalenessRefresh(0.05, warmup=4)
    (message,), _ = told_of_generations(made(Short), 3, refresh=policy)
    assert "computes the first 4 calls" in message
    assert message.endswith("SelectiveRefresh(fraction=0.05, warmup=1) + StalenessRefresh(fraction=0.05, warmup=1)")


class Begins(RefreshPolicy):
    """A policy of one's own."""

    warmup = 3

    def choose(self, history: marche_fx.History) -> marche_fx.Refresh:
        return marche_fx.Refresh(history.tokens if history.step < self.warmup else 0, history.age)


def test_a_policy_of_ones_own_is_told_to_begin_sooner() -> None:
    (message,), _ = told_of_generations(made(Short), 3, refresh=Begins())
    assert message.endswith("let Begins begin sooner")

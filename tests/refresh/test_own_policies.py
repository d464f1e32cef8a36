"""Refresh policies of a user's own: what runs by their answers, and which answers are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from marche_fx import History, PolicyError, Refresh, RefreshPolicy, RowSignal
from marche_fx.api.optimization import optimization_of
from tests.sessions import TOKENS, records, run


def distance(now: Tensor, before: Tensor | None) -> Tensor:
    assert before is not None
    return (now - before).norm(dim=-1)


class FastMovers(RefreshPolicy):
    """What a user would write."""

    signals = (RowSignal(distance, "blocks.0.attention", "k"),)

    def choose(self, history: History) -> Refresh:
        moves = history.smoothed(self.signals[0])
        return Refresh(4, history.age if moves is None else moves * history.age)


def test_a_policy_of_ones_own_refreshes_what_it_ranks_highest() -> None:
    policy = FastMovers()
    optimized = run(policy, steps=5)
    assert [program.signals for program in optimization_of(optimized).steps["forward"].programs] == [policy.signals]
    assert records(optimized)[0].active == TOKENS
    for record in records(optimized)[1:]:
        assert record.active in (8, 16)
        assert ((record.reasons == 3).sum(1) >= 4).all(), "four are asked for, and more where there is room"


made: Any = Refresh
"""For arguments of the wrong type."""


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h: Refresh(4, h.age[:1]), r"Bad must give its priority as \(2, 40\).* got \(1, 40\)"),
        (lambda h: Refresh(4, h.age[..., None]), r"priority as \(2, 40\).* got \(2, 40, 1\)"),
        (lambda h: Refresh(4, h.age.tolist()), r"priority as \(2, 40\).* got list"),
        (lambda h: Refresh(4, h.age * 1j), r"one number for each token"),
        (lambda h: Refresh(4, torch.full_like(h.age, float("nan"))), "Bad gave a priority that holds NaN"),
        (lambda h: Refresh(4, h.age.masked_fill(h.age == 1, float("nan"))), "Bad gave a priority that holds NaN"),
        (lambda h: Refresh(-1, h.age), "int that is not negative, got -1"),
        (lambda h: made(0.1, h.age), r"int that is not negative, got 0\.1"),
        (lambda h: Refresh(True, h.age), "int that is not negative, got True"),
        (lambda h: made(torch.tensor(4), h.age), r"int that is not negative, got tensor\(4\)"),
        (lambda h: Refresh(4), "Bad refreshes 4 of 40 tokens and must give a priority"),
        (lambda h: Refresh(4, torch.ones(2, 40, device="meta")), "priority on meta, and the tokens are on cpu"),
        (lambda h: (4, h.age), "Bad.choose must return a Refresh, got tuple"),
        (lambda h: None, "Bad.choose must return a Refresh, got NoneType"),
    ],
)
def test_an_answer_that_cannot_be_done_is_refused_by_the_name_of_the_policy(
    answer: Callable[[History], Any], message: str
) -> None:
    """Alone, or as a part of a sum."""

    class Bad(RefreshPolicy):
        def choose(self, history: History) -> Refresh:
            return Refresh(history.tokens) if history.step == 0 else answer(history)

    good = Constant(4, torch.arange(TOKENS).expand(2, TOKENS))
    for policy in (Bad(), good + Bad(), Bad() + good, good + (Bad() + good)):
        with pytest.raises(PolicyError, match=message):
            run(policy, steps=2)


class Constant(RefreshPolicy):
    """Refreshes ``count`` tokens by a priority given beforehand."""

    def __init__(self, count: int, priority: Tensor) -> None:
        self.count = count
        self.priority = priority

    def choose(self, history: History) -> Refresh:
        return Refresh(self.count, self.priority)


def test_a_policy_that_repeats_anothers_choice_with_a_priority_of_its_own_is_checked_for_that() -> None:
    class Halved(RefreshPolicy):
        def choose(self, history: History) -> Refresh:
            return replace(self.inner.choose(history), priority=torch.full((2, TOKENS), float("nan")))

        inner = Constant(2, torch.ones(2, TOKENS)) + Constant(2, torch.ones(2, TOKENS))

    with pytest.raises(PolicyError, match="Halved gave a priority that holds NaN"):
        run(Halved(), steps=2)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16, torch.float64])
def test_a_priority_may_have_any_dtype_that_has_an_order(dtype: torch.dtype) -> None:
    first, second = torch.zeros(2, 2, TOKENS, dtype=dtype).unbind()
    first[:, -4:], second[:, 20:24] = 1, 1
    for policy in (Constant(4, first), Constant(4, first) + Constant(4, second)):
        for record in records(run(policy, steps=3))[1:]:
            assert (record.reasons[:, -4:] > 0).all()
    assert (record.reasons[:, 20:24] > 0).all()


def test_no_priority_is_so_high_that_what_changed_or_is_read_does_not_run() -> None:
    for record in records(run(Constant(2, torch.full((2, TOKENS), float("inf"))), steps=5))[1:]:
        assert ((record.reasons == 1).sum(1) == 3).all(), "three tokens are replaced in each step"
        assert (record.reasons[:, :2] > 0).all(), "two are read"


def test_an_infinite_priority_of_the_second_of_two_does_not_push_out_the_first() -> None:
    first = torch.arange(TOKENS, dtype=torch.float32).expand(2, TOKENS)
    both = Constant(8, first) + Constant(8, torch.full((2, TOKENS), float("inf")))
    for record in records(run(both, steps=4))[1:]:
        assert (record.reasons[:, -8:] > 0).all()


def test_nan_of_a_token_that_the_first_of_two_takes_is_refused_too() -> None:
    first = torch.arange(TOKENS, dtype=torch.float32).expand(2, TOKENS)
    with pytest.raises(PolicyError, match="Constant gave a priority that holds NaN"):
        run(Constant(4, first) + Constant(4, first.masked_fill(first == TOKENS - 1, float("nan"))), steps=2)

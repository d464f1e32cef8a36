"""Refresh policies."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marche_fx import ArgumentError, FullRefresh, History, SelectiveRefresh
from marche_fx.refresh import SMOOTHING


def history(step: int = 9) -> History:
    return History(age=torch.tensor([[1.0, 4.0, 2.0, 1.0]]), step=step)


def test_selective_refresh_takes_attention_times_age() -> None:
    state = history()
    state.observe(torch.tensor([[0.4, 0.2, 0.3, 0.1]]))
    choice = SelectiveRefresh(fraction=0.5).choose(state)
    assert choice.count == 2
    assert choice.priority is not None
    assert torch.allclose(choice.priority, torch.tensor([[0.4, 0.8, 0.6, 0.1]]))


def test_without_age_it_takes_the_last_attention_alone() -> None:
    state = history()
    state.observe(torch.tensor([[0.7, 0.1, 0.1, 0.1]]))
    state.observe(torch.tensor([[0.4, 0.2, 0.3, 0.1]]))
    choice = SelectiveRefresh(fraction=0.5, age=False).choose(state)
    assert choice.priority is not None
    assert choice.priority.tolist() == [pytest.approx([0.4, 0.2, 0.3, 0.1])]


def test_attention_is_smoothed_over_steps() -> None:
    state = history()
    state.observe(torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    state.observe(torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    assert state.smooth_attention is not None
    assert state.smooth_attention.tolist() == [pytest.approx([1 - SMOOTHING, SMOOTHING, 0, 0])]


def test_before_anything_was_observed_the_oldest_come_first() -> None:
    choice = SelectiveRefresh(fraction=0.5).choose(history())
    assert choice.priority is not None
    assert choice.priority.tolist() == [[1.0, 4.0, 2.0, 1.0]]


@pytest.mark.parametrize(
    ("options", "full_steps"),
    [
        ({"warmup": 2}, [0, 1]),
        ({"warmup": 0}, []),
        ({"warmup": 1, "every": 3}, [0, 3, 6]),
        ({"fraction": 1.0}, list(range(8))),
    ],
)
def test_steps_in_full(options: dict[str, Any], full_steps: list[int]) -> None:
    policy = SelectiveRefresh(**options)
    assert [step for step in range(8) if policy.choose(history(step)).count == 4] == full_steps


def test_full_refresh_is_full_in_every_step() -> None:
    assert [FullRefresh().choose(history(step)).count for step in range(3)] == [4, 4, 4]


@pytest.mark.parametrize(
    "options",
    [
        {"fraction": -0.1},
        {"fraction": 1.1},
        {"fraction": float("nan")},
        {"warmup": -1},
        {"every": 0},
        {"sites": 0},
        {"tolerance": -1.0},
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        SelectiveRefresh(**options)

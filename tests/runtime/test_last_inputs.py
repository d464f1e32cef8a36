"""Which tokens' inputs moved."""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx

from marche_fx.passes.rewrite.watch import Watched
from marche_fx.runtime.last_inputs import LastInputs, has_moved, is_beyond

NODE = fx.Graph().placeholder("x")
SAMPLES = torch.arange(2)[:, None]


def last_inputs(*watched: tuple[int | None, int | None]) -> LastInputs:
    return LastInputs([Watched(NODE, batch, token) for batch, token in watched], samples=2, tokens=5)


def remember(inputs: LastInputs, now: list[Tensor], active: list[list[int]], *, complete: bool = False) -> None:
    inputs.remember(now, SAMPLES, torch.tensor(active), complete=complete)


EVERY = [list(range(5))] * 2


def test_a_token_is_compared_with_what_it_was_last_computed_with() -> None:
    inputs = last_inputs((0, 1))
    x = torch.randn(2, 5, 3)
    assert inputs.changed([x], 0.0).all()
    remember(inputs, [x], EVERY, complete=True)
    assert not inputs.changed([x], 0.0).any()

    moved = x.clone()
    moved[0, 1] += 1
    moved[1, 4] += 1
    assert inputs.changed([moved], 0.0).nonzero().tolist() == [[0, 1], [1, 4]]
    # Sample 0 recomputes its changed token, sample 1 another one.
    remember(inputs, [moved], [[1], [0]])
    assert inputs.changed([moved], 0.0).nonzero().tolist() == [[1, 4]]
    assert inputs.changed([x], 0.0).nonzero().tolist() == [[0, 1]]


def test_movement_below_the_tolerance_is_drift_until_it_adds_up() -> None:
    inputs = last_inputs((0, 1))
    x = torch.ones(2, 5, 4)
    remember(inputs, [x], EVERY, complete=True)
    assert not inputs.changed([x * 1.2], 0.3).any()
    remember(inputs, [x * 1.2], [[0], [0]])
    # Token 0 was recomputed at 1.2, the others still stand at 1.
    assert inputs.changed([x * 1.4], 0.3).nonzero()[:, 1].unique().tolist() == [1, 2, 3, 4]


def test_integers_change_whenever_they_differ() -> None:
    inputs = last_inputs((0, 1))
    ids = torch.full((2, 5), 1000)
    remember(inputs, [ids], EVERY, complete=True)
    assert inputs.changed([ids + (torch.arange(5) == 2)], 0.5).nonzero().tolist() == [[0, 2], [1, 2]]


def test_a_changed_value_of_a_sample_changes_all_of_its_tokens() -> None:
    inputs = last_inputs((0, 1), (0, None))
    x, time = torch.randn(2, 5, 3), torch.tensor([0.1, 0.2])
    remember(inputs, [x, time], EVERY, complete=True)
    later = torch.tensor([0.1, 0.9])
    assert inputs.changed([x, later], 0.0).all(1).tolist() == [False, True]
    # While only some tokens are recomputed the others still stand at the old time.
    remember(inputs, [x, later], [[0], [0]])
    assert inputs.changed([x, later], 0.0)[1].all()
    remember(inputs, [x, later], EVERY, complete=True)
    assert not inputs.changed([x, later], 0.0).any()


def test_a_value_that_all_samples_share_changes_every_sample() -> None:
    inputs = last_inputs((0, 1), (None, 0))
    x, positions = torch.randn(2, 5, 3), torch.arange(5)
    remember(inputs, [x, positions], EVERY, complete=True)
    moved = positions.clone()
    moved[3] = 9
    assert inputs.changed([x, moved], 0.0).nonzero().tolist() == [[0, 3], [1, 3]]
    remember(inputs, [x, moved], [[3], [0]])
    assert inputs.changed([x, moved], 0.0).nonzero().tolist() == [[1, 3]]


def test_a_token_that_was_dropped_must_be_computed_when_it_appears() -> None:
    inputs = last_inputs((0, 1))
    x = torch.randn(2, 5, 3)
    remember(inputs, [x], [[0, 1], [2, 3]], complete=True)
    assert (~inputs.changed([x], 0.0)).nonzero().tolist() == [[0, 0], [0, 1], [1, 2], [1, 3]]


def test_the_token_axis_may_stand_anywhere() -> None:
    inputs = last_inputs((1, 2))
    x = torch.randn(4, 2, 5, 3)
    remember(inputs, [x], EVERY, complete=True)
    moved = x.clone()
    moved[3, 1, 2, 0] += 1
    assert inputs.changed([moved], 0.0).nonzero().tolist() == [[1, 2]]


def test_a_nan_counts_as_a_change() -> None:
    x = torch.ones(2, 3)
    assert has_moved(x, x * torch.tensor([[1.0], [float("nan")]]), 0.5).tolist() == [False, True]
    assert has_moved(torch.zeros(1, 3), torch.zeros(1, 3), 0.5).tolist() == [False]


def test_an_infinite_tolerance_lets_rows_of_zeros_move_too() -> None:
    before, after = torch.tensor([[0], [0], [3]]), torch.tensor([[0], [5], [4]])
    assert not is_beyond(before, after, math.inf).any()
    assert is_beyond(before, after, 10.0).tolist() == [False, True, False]
    assert is_beyond(torch.zeros(1, 2), torch.tensor([[math.nan, 0]]), math.inf).all()

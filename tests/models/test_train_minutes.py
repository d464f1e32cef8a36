"""A training that is given minutes ends in time."""

import math
from pathlib import Path

import pytest
import torch

from marche_fx.models.train import Pace, train
from marche_fx.models.training_state import STATE_FILE

from .runs import IMAGES, RECIPE, fresh_model, killed_after


class Clock:
    """Tells the seconds it is set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_run_with_minutes_ends_in_time_and_expects_its_end_after_a_slow_start() -> None:
    clock = Clock()
    pace, step, totals = Pace(math.inf, 10, clock), 0, []
    while step < (total := pace.total(step)):
        totals.append(total)
        clock.now += 60 if step == 0 else 0.5  # The first step compiles.
        step += 1
    assert clock.now == pytest.approx(600, abs=1)
    assert step == pytest.approx(1 + 540 / 0.5, abs=2)
    assert all(total == pytest.approx(step, rel=0.01) for total in totals[201:])


def test_a_run_with_minutes_has_no_more_steps_than_its_epochs() -> None:
    clock = Clock()
    pace, step = Pace(7, 10, clock), 0
    while step < pace.total(step):
        clock.now += 0.5
        step += 1
    assert step == 7


def test_a_run_with_no_minutes_left_keeps_its_state(tmp_path: Path) -> None:
    killed_after(5, tmp_path)
    train(fresh_model(), IMAGES, tmp_path, RECIPE, minutes=0)
    assert torch.load(tmp_path / STATE_FILE, weights_only=True)["step"] == 5

"""Of which arguments a tolerance is taken: of numbers that move, and not of ids."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.lazy.tensor import resolved
from tests.loops import models
from tests.loops.loops import reveal, words

TIMES = 100


class ByTable(models.Words):
    """Under a timestep by which a row of a table is looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Embedding(TIMES, models.D)

    def forward(self, ids: Tensor, time: Tensor) -> Tensor:  # type: ignore[override]
        time = self.time(time)
        return self.head(self.body(self.embedded(ids) + (time if time.ndim == 3 else time[:, None])))


class BySine(models.Words):
    """Under a timestep that is taken for a number, of each token if need be."""

    def forward(self, ids: Tensor, time: Tensor) -> Tensor:  # type: ignore[override]
        angles = time[..., None] / torch.logspace(0, 3, models.D)
        return self.head(self.body(self.embedded(ids) + (angles.sin() if time.ndim == 2 else angles.sin()[:, None])))


class Compared(models.Words):
    """Given of each token the number of its block, which is compared with others."""

    def forward(self, ids: Tensor, block: Tensor) -> Tensor:  # type: ignore[override]
        return self.head(self.body(self.embedded(ids) + (block == block[:, :1])[..., None]))


@torch.no_grad()
def active(model: nn.Module, moving: str, starts: Tensor, each: int, tolerance: dict[str, float]) -> list[int]:
    """How many tokens each call of a session computes, while an argument moves by ``each`` a call."""
    torch.manual_seed(0)
    policy = SelectiveRefresh(0.1, warmup=1)
    optimized = marche_fx.transform(model.eval(), refresh=policy, tolerance=tolerance, compile=False)
    ids = words()
    with marche_fx.decoding(optimized) as session:
        for number in range(4):
            resolved(optimized(ids, **{moving: starts - each * number})[:, 8:12])
            ids = reveal(ids, number)
    return [own.active for own in session.records]


@pytest.mark.parametrize(
    ("tolerance", "of"), [({"ids": 0.3}, "ids"), ({"ids": 0.3, "time": 0.3}, "ids"), ({"block": 0.3}, "block")]
)
def test_a_tolerance_of_ids_is_refused_by_name(tolerance: dict[str, float], of: str) -> None:
    model, other = (Compared(), "block") if of == "block" else (ByTable(), "time")
    reader = "aten.eq" if of == "block" else "aten.embedding at word"
    with pytest.raises(marche_fx.ArgumentError, match=rf"tolerance names '{of}', .*int64.* {reader} .*Leave it out"):
        active(model, other, torch.full((2, 64) if of == "block" else (2,), 50), 1, tolerance)


@pytest.mark.parametrize("kind", [ByTable, BySine])
def test_a_timestep_of_whole_numbers_may_move(kind: type[nn.Module]) -> None:
    first, *later = active(kind(), "time", torch.full((2,), 50), 1, {"time": 10.0})
    assert first == models.N
    assert max(later) < models.N
    assert active(kind(), "time", torch.full((2,), 50), 1, {}) == [models.N] * 4


def test_a_timestep_of_each_token_may_move_where_it_is_taken_for_a_number() -> None:
    _, *later = active(BySine(), "time", torch.full((2, models.N), 50), 1, {"time": 10.0})
    assert max(later) < models.N


def test_a_timestep_of_each_token_by_which_rows_are_looked_up_is_refused() -> None:
    with pytest.raises(marche_fx.ArgumentError, match=r"tolerance names 'time', which gives ByTable\.forward ids"):
        active(ByTable(), "time", torch.full((2, models.N), 50), 1, {"time": 0.3})


def test_ids_of_which_any_may_move_are_taken() -> None:
    block = torch.arange(models.N).expand(2, -1).contiguous()
    _, *with_changed_ids = active(Compared(), "block", block, 0, {})
    _, *later = active(Compared(), "block", block, 1, {"ids": math.inf, "block": math.inf})
    assert max(later) <= min(with_changed_ids) < models.N
    assert active(Compared(), "block", block, 1, {"ids": math.inf})[1:] == [models.N] * 3


class Both(models.Words):
    """Whose ids meet those around them, before attention, and are looked up once more."""

    def __init__(self) -> None:
        super().__init__()
        self.around = nn.Conv1d(models.D, models.D, 3, padding=1)

    def forward(self, ids: Tensor, other: Tensor) -> Tensor:  # type: ignore[override]
        return self.head(self.body(self.around(self.word(other).mT).mT + self.embedded(ids)))


def test_what_is_made_of_ids_may_move_and_is_numbers() -> None:
    others = torch.full((2, models.N), 9)
    assert active(Both(), "other", others, 1, {}) == [models.N] * 4
    _, *later = active(Both(), "other", others, 1, {"other": 10.0})
    assert max(later) < models.N

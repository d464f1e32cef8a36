"""Sessions leave nothing behind, and the soak would see it if one tensor of each stayed."""

from __future__ import annotations

import pytest
from torch import Tensor

from marche_fx.bench import soak as module
from marche_fx.bench.soak import POLICIES, SHAPES, Reading, soak
from marche_fx.runtime.state import StepState

ROUND = 10


def grown(readings: list[Reading]) -> dict[str, float]:
    """What is more after the last reading than after the one before."""
    before, after = readings[-2:]
    names = ("tensors", "threads", "descriptors", "captures", "operators")
    return {name: own for name in names if (own := getattr(after, name) - getattr(before, name)) > 0}


def test_sessions_leave_nothing_behind() -> None:
    assert not grown([*soak(3 * ROUND, ROUND, SHAPES[:2], POLICIES[:1])])


def test_captures_of_shapes_that_vary_make_room_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    monkeypatch.setattr(module, "RARE", 4)
    readings = [*soak(6 * ROUND, ROUND, SHAPES[:2], POLICIES[:1], rare=ROUND // 2)]
    assert [own.captures for own in readings] == [3] * 6
    assert [own.dropped for own in readings] == [1, 3, 5, 7, 9, 11]
    assert not grown(readings)


def test_a_tensor_of_each_session_that_stays_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Tensor] = []
    release = StepState.release

    def leaks(state: StepState) -> None:
        kept.extend(getattr(state, "caches", [])[:1])
        release(state)

    monkeypatch.setattr(StepState, "release", leaks)
    assert grown([*soak(3 * ROUND, ROUND, SHAPES[:2], POLICIES[:1])]) == {"tensors": ROUND}

"""Which decoding steps are timed, and how they stand for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marche_fx.bench.schedule import integrated, spread, step_weights
from marche_fx.errors import ArgumentError

counts = st.integers(1, 100)


def test_every_eighth_step_is_timed_and_the_first_and_the_last() -> None:
    assert spread(20, 8) == (0, 8, 16, 19)
    assert step_weights((0, 8, 16, 19), 20) == {0: 4.5, 8: 8.0, 16: 5.5, 19: 2.0}


@given(counts, st.integers(1, 20))
def test_a_spread_has_the_first_and_the_last_step_and_none_twice(count: int, every: int) -> None:
    timed = spread(count, every)
    assert timed[0] == 0
    assert timed[-1] == count - 1
    assert list(timed) == sorted(set(timed))


@given(counts, st.data())
def test_every_step_counts_once(count: int, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, count - 1))) | {0, count - 1}
    assert sum(step_weights(sorted(chosen), count).values()) == pytest.approx(count)


@given(counts, st.data(), st.floats(-10, 10), st.floats(-10, 10))
def test_times_linear_in_the_step_add_up_exactly(count: int, data: st.DataObject, offset: float, slope: float) -> None:
    chosen = data.draw(st.sets(st.integers(0, count - 1))) | {0, count - 1}
    exact = sum(offset + slope * step for step in range(count))
    assert integrated({step: offset + slope * step for step in chosen}, count) == pytest.approx(exact, abs=1e-6)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50))
def test_all_steps_timed_are_their_sum(seconds: list[float]) -> None:
    assert integrated(dict(enumerate(seconds)), len(seconds)) == pytest.approx(sum(seconds))


@pytest.mark.parametrize("timed", [(), (0, 3), (1, 4)])
def test_the_ends_must_be_timed(timed: tuple[int, ...]) -> None:
    with pytest.raises(ArgumentError, match="first and the last of 5"):
        step_weights(timed, 5)

"""Which timesteps are kept, and which draws they take."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marche_fx.denoising.spacing import (
    SPACINGS,
    apart,
    chosen_draws,
    evenly_spaced,
    kept_timesteps,
    last_with_signal,
)
from marche_fx.errors import ArgumentError
from marche_fx.models.diffusion import GaussianDiffusion, cosine_betas

SIGNAL = GaussianDiffusion(cosine_betas()).signal
spacings = st.sampled_from(list(SPACINGS))


@given(spacing=spacings, last=st.integers(1, 999), data=st.data())
def test_kept_timesteps_ascend_from_the_first_to_the_last(spacing: str, last: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, last + 1))
    kept = kept_timesteps(SIGNAL, count, spacing, last)
    assert len(kept) == count
    assert (kept[0], kept[-1]) == (0, last)
    assert all(a < b for a, b in itertools.pairwise(kept))


@given(count=st.integers(2, 1000))
def test_even_spacing_is_that_of_the_bundled_head(count: int) -> None:
    assert kept_timesteps(SIGNAL, count, "even", 999) == evenly_spaced(1000, count).tolist()


def test_quadratic_spacing_is_denser_near_the_data() -> None:
    assert kept_timesteps(SIGNAL, 5, "quadratic", 800) == [0, 50, 200, 450, 800]


def test_logsnr_spacing_is_even_in_the_logarithm_of_signal_over_noise() -> None:
    kept = kept_timesteps(SIGNAL, 12, "logsnr", 950)
    ratios = [math.log(float(SIGNAL[t]) / (1 - float(SIGNAL[t]))) for t in kept]
    gaps = [a - b for a, b in itertools.pairwise(ratios)]
    # Near the data a timestep moves the ratio by more than a rounding.
    assert gaps[4:] == pytest.approx([(ratios[0] - ratios[-1]) / 11] * 7, rel=0.03)


@given(last=st.integers(0, 40), data=st.data())
def test_places_apart_are_different_and_those_that_were_stay(last: int, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, last), min_size=1, max_size=last + 1)))
    found = apart(places, last)
    assert len(set(found)) == len(places)
    assert found == sorted(found)
    assert 0 <= found[0] <= found[-1] <= last
    if len(set(places)) == len(places):
        assert found == places


def test_a_solver_without_noise_starts_where_there_is_signal() -> None:
    last = last_with_signal(SIGNAL)
    assert last == 950
    assert SIGNAL[last] > 0.0057 > SIGNAL[last + 1]


@pytest.mark.parametrize(("count", "last", "message"), [(1, 999, "2..1000"), (1001, 999, "2..1000"), (7, 5, "2..6")])
def test_a_count_that_the_schedule_has_not_is_refused(count: int, last: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"denoising steps must lie in {message}, got {count}"):
        kept_timesteps(SIGNAL, count, "even", last)


@pytest.mark.parametrize("last", [0, 1000])
def test_a_clip_outside_of_the_schedule_is_refused(last: int) -> None:
    with pytest.raises(ArgumentError, match=f"clip must be a timestep of the schedule, 1..999, got {last}"):
        kept_timesteps(SIGNAL, 2, "even", last)


timesteps = st.sets(st.integers(0, 999), min_size=2, max_size=60).map(sorted)


@given(own=timesteps, extra=st.integers(0, 60))
def test_every_timestep_takes_a_draw_of_its_own_in_the_order_of_use(own: list[int], extra: int) -> None:
    given_draws = len(own) + extra
    draws = chosen_draws(own, given_draws, 1000)
    assert len(draws) == len(own)
    assert draws[0] == 0
    assert all(a < b for a, b in itertools.pairwise(draws))
    assert draws[-1] < given_draws
    if not extra:
        assert draws == list(range(given_draws))


@given(whole=st.integers(3, 60), data=st.data())
def test_timesteps_of_the_whole_schedule_take_the_draws_that_they_had(whole: int, data: st.DataObject) -> None:
    kept = evenly_spaced(1000, whole).tolist()
    places = sorted({*data.draw(st.sets(st.integers(0, whole - 1))), 0, whole - 1})
    draws = chosen_draws([kept[place] for place in places], whole, 1000)
    assert draws == [whole - 1 - place for place in reversed(places)]


def test_fewer_draws_than_timesteps_are_refused() -> None:
    with pytest.raises(ArgumentError, match="holds 2 draws of each token, and 3 denoising steps"):
        chosen_draws([0, 5, 9], 2, 10)


def test_the_signal_is_of_the_dtype_of_the_schedule() -> None:
    assert SIGNAL.dtype == torch.float64

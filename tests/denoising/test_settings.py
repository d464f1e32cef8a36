"""What may be asked of a denoising."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marche_fx import ArgumentError, Denoising


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps must be a whole number of at least 2, got 0"),
        ({"steps": 25.0}, "steps must be a whole number"),
        ({"steps": True}, "steps must be a whole number"),
        ({"spacing": "log"}, "spacing must be one of 'even', 'quadratic', 'logsnr', got 'log'"),
        ({"solver": "euler"}, "solver must be one of 'ancestral', 'ddim', 'dpm"),
        ({"anneal": (50, 1)}, "anneal must be a whole number of at least 2, got 1"),
        ({"anneal": 50}, "anneal must be two numbers"),
        ({"anneal": (50, 5), "steps": 25}, "either steps or anneal"),
        ({"clip": 0}, "clip must be a whole number of at least 1"),
        ({"guidance": (0.5, 0.5)}, "guidance must be shares"),
        ({"guidance": (0.2, 1.5)}, "guidance must be shares"),
        ({"guidance": ("low", "high")}, "guidance must be shares"),
        ({"decoding_steps": 64}, "needs anneal"),
        ({"anneal": (50, 5), "decoding_steps": 0}, "decoding_steps must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Denoising(**arguments)


@given(first=st.integers(2, 200), last=st.integers(2, 200), of=st.integers(2, 300))
def test_annealed_steps_fall_evenly_from_the_first_to_the_last(first: int, last: int, of: int) -> None:
    asked = Denoising(anneal=(first, last))
    counts = [asked.steps_at(step, of, own=100) for step in range(of)]
    assert (counts[0], counts[-1]) == (first, last)
    assert all(abs(own - (first + (last - first) * step / (of - 1))) <= 0.5 for step, own in enumerate(counts))


def test_a_decoding_in_one_step_takes_the_first_number() -> None:
    assert Denoising(anneal=(50, 5)).steps_at(0, 1, own=100) == 50


def test_steps_are_those_asked_for_or_the_models_own() -> None:
    assert Denoising(steps=25).steps_at(3, 8, own=100) == 25
    assert Denoising().steps_at(3, 8, own=100) == 100


@pytest.mark.parametrize(
    ("timestep", "is_guided"), [(0, False), (99, False), (100, True), (599, True), (600, False), (999, False)]
)
def test_guidance_holds_above_the_low_share_up_to_the_high_one(timestep: int, is_guided: bool) -> None:
    assert Denoising(guidance=(0.1, 0.6)).is_guided_at(timestep, 1000) is is_guided


@given(timestep=st.integers(0, 999))
def test_guidance_holds_everywhere_where_nothing_is_said(timestep: int) -> None:
    assert Denoising().is_guided_at(timestep, 1000)
    assert Denoising(guidance=(0, 1)).is_guided_at(timestep, 1000)

"""Where a denoising begins, and at which timesteps it is expected to be called."""

from __future__ import annotations

import warnings

import pytest
import torch

from marche_fx import HeadReuse, Interpolate
from tests.head.denoisers import denoised
from tests.head.heads import TIMES, arguments, assert_close, head_of, model_of, three, transformed
from tests.head.oracle import Oracle


@torch.no_grad()
def test_an_announcement_begins_a_denoising_whatever_its_condition() -> None:
    model = model_of("adaln")
    optimized = transformed(model, HeadReuse(Interpolate(2, "linear")))
    head = head_of(optimized)
    denoised(optimized.net, arguments(5)[0], TIMES, arguments(5)[1])
    x, c = arguments(5, 1)
    oracle = Oracle(model.net, (900, 500, 100), (0, 2), 2)
    for times, expected in (((900, 500, 100), oracle.plain(x, c)), ((900, 100), None), ((900, 500, 100), None)):
        head.expect(times)
        found = denoised(optimized.net, x, times[:2], c)
        if expected is not None:
            assert_close(found, expected[:2])
    records = list(head.record.denoisings)[-3:]
    assert [(len(own.calls), own.slow) for own in records] == [(2, 2), (2, 2), (2, 2)]


@torch.no_grad()
def test_two_calls_of_guidance_in_turn_are_two_denoisings() -> None:
    model = model_of("adaln")
    optimized = transformed(model, HeadReuse(Interpolate(4)))
    for seed in range(3):
        x, c = arguments(6, seed)
        null = torch.zeros_like(c)
        for time in TIMES:
            t = torch.full((6,), time)
            for condition in (c, null):
                found = optimized.net(x, t, condition)
                torch.testing.assert_close(found, model.net(x, t, condition), rtol=0.2, atol=0.2)
            x = 0.9 * x + 0.1 * found
    head = head_of(optimized)
    assert [(len(own.calls), own.slow) for own in list(head.record.denoisings)[-2:]] == [(10, 4), (10, 4)]


@torch.no_grad()
def test_other_timesteps_are_computed_exactly_and_told_once() -> None:
    model = model_of("adaln")
    optimized = transformed(model, HeadReuse(Interpolate(3)))
    others = tuple(range(980, 80, -100))
    for seed in range(2):
        denoised(optimized.net, arguments(5, seed)[0], TIMES, arguments(5, seed)[1])
    x, c = arguments(5, 2)
    with pytest.warns(UserWarning, match=r"net.forward was called at another timestep \(980\) than in the denoising"):
        found = denoised(optimized.net, x, others, c)
    assert_close(found, denoised(model.net, x, others, c))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        denoised(optimized.net, x + 1, others, c + 1)
    assert head_of(optimized).record.denoisings[-1].slow == 3, "the next expects them"


@torch.no_grad()
def test_a_part_of_the_timesteps_is_no_other_schedule() -> None:
    model = model_of("film")
    optimized = transformed(model, HeadReuse(Interpolate(10), guidance=3), "forward_with_cfg")
    for seed in range(2):
        denoised(optimized.net.forward_with_cfg, *three(8, TIMES, seed), 2.0)
    x, times, c = three(8, TIMES[3:7], 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = denoised(optimized.net.forward_with_cfg, x, times, c, 2.0)
    assert_close(found[:1], denoised(model.net.forward_with_cfg, x, times, c, 2.0)[:1])
    assert head_of(optimized, "forward_with_cfg").record.denoisings[-1].calls == "FccF"


@torch.no_grad()
def test_a_condition_that_is_written_in_place_is_another() -> None:
    model = model_of("adaln")
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            optimized = transformed(model, "exact")
            x, c = arguments(5)
            for number, time in enumerate(2 * TIMES):
                # Also between two calls of a denoising, which begins another one.
                c += float(number % 4 == 3)
                x, t = x + 1, torch.full((5,), time)
                assert_close([optimized.net(x, t, c)], [model.net(x, t, c)])
            assert len(head_of(optimized).record.denoisings) > 3


@torch.no_grad()
def test_where_every_call_has_another_condition_nothing_is_computed_ahead() -> None:
    model = model_of("adaln")
    optimized = transformed(model, "exact")
    for seed in range(2):
        denoised(optimized.net, arguments(5, seed)[0], TIMES, arguments(5, seed)[1])
    x, c = arguments(5, 2)
    for number, time in enumerate(TIMES):
        t, other = torch.full((5,), time), c + number
        assert_close([optimized.net(x, t, other)], [model.net(x, t, other)])
    records = list(head_of(optimized).record.denoisings)[2:]
    assert [own.slow for own in records] == [10, 9, 8, 7, *[1] * 6]

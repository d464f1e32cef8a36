"""Which argument is what is found whatever solver calls."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marche_fx.head.calls import Call
from marche_fx.head.roles import FRUITLESS, PATIENT, RoleFinder
from tests.head.heads import arguments, assert_close, head_of, model_of, transformed
from tests.head.loops import FIRST, SAME, SECOND, SOLVERS, Loop

LOOPS = st.builds(Loop, st.sampled_from(SOLVERS), st.integers(2, 5), st.booleans())


@torch.no_grad()
@settings(max_examples=12)
@given(LOOPS, st.integers(0, 99))
@example(Loop(SECOND, 2, False), 0)
@example(Loop(FIRST, 2, False), 0)
@example(Loop(SAME, 2, True), 0)
def test_a_denoiser_of_any_loop_is_captured_and_computes_what_it_did(loop: Loop, seed: int) -> None:
    model = model_of("adaln", seed)
    optimized = transformed(model, "exact")
    calls = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(FRUITLESS // loop.calls + 3):
            x, c = arguments(6, seed + number)
            found = loop.run(optimized.net, x, c)
            assert_close(found, loop.run(model.net, x, c))
            calls += len(found)
    head = head_of(optimized)
    (program,) = head.programs.values()
    assert [len(own) for own in (program.times, program.conditions)] == [1, 1]
    assert head.record.as_is <= PATIENT + 2 * loop.calls
    ended = list(head.record.denoisings)[-1 - loop.is_apart :]
    assert [len(own.calls) for own in ended] == [loop.calls] * len(ended)


@pytest.mark.parametrize("loop", [Loop(SECOND, 2, False), Loop(FIRST, 2, False), Loop(SAME, 2, True)])
def test_an_argument_that_moves_between_denoisings_alone_is_the_condition(loop: Loop) -> None:
    finder = RoleFinder()
    roles = []

    def look(x: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        roles.append(finder.roles(Call.of(lambda x, t, c: None, (x, t, c), {})))
        return torch.tanh(x + c.mean())

    for seed in range(FRUITLESS // loop.calls):
        if not any(roles):
            loop.run(look, *arguments(6, seed))
    first = next(own for own in roles if own)
    assert first == ("noisy", "time", "condition")

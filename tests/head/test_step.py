"""A captured denoiser computes what the original does, and where it reuses, what the oracle says."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marche_fx import HeadReuse, Hold, HoldBranches, Interpolate
from tests.head.denoisers import KINDS, denoised
from tests.head.heads import TIMES, arguments, assert_close, head_of, model_of, three, transformed
from tests.head.oracle import Oracle


@torch.no_grad()
def test_the_first_example() -> None:
    model = model_of("adaln")
    optimized = transformed(model, "exact")
    for seed in range(3):
        x, c = arguments(6, seed)
        assert_close(denoised(optimized.net, x, TIMES, c), denoised(model.net, x, TIMES, c))
    head = head_of(optimized)
    assert head.record.as_is == 2, "two calls tell which argument is what, with a third"
    # In the first denoising the times that follow are not known.
    assert [own.slow for own in head.record.denoisings] == [8, 10, 10]
    assert model.net.forward != optimized.net.forward, "the original is left alone"


@torch.no_grad()
@settings(max_examples=10)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 3),
    st.lists(st.integers(4, 40), min_size=3, max_size=4),
    st.booleans(),
    st.integers(0, 99),
)
def test_nothing_reused_is_the_original(kind: str, depth: int, counts: list[int], guided: bool, seed: int) -> None:
    model = model_of(kind, seed, depth=depth)
    method = "forward_with_cfg" if guided else "forward"
    optimized = transformed(model, "exact", method)
    for number, count in enumerate(counts):
        x, c = arguments(2 * count if guided else count, seed + number)
        scale = (1.5 + number,) if guided else ()
        found, expected = (
            denoised(getattr(own.net, method), x, TIMES, c, *scale, scalar=kind == "scalar")
            for own in (optimized, model)
        )
        assert_close(found, expected)
    head = head_of(optimized, method)
    assert not len(head.refused)
    assert head.record.as_is == 2


POLICIES = st.one_of(
    st.builds(Interpolate, st.integers(2, 9), st.sampled_from(["linear", "cubic"])), st.builds(Hold, st.integers(1, 5))
)


BRANCHES = st.none() | st.builds(HoldBranches, st.integers(1, 5), st.lists(st.integers(0, 3), unique=True).map(tuple))


@torch.no_grad()
@settings(max_examples=20)
@given(
    st.sampled_from([kind for kind in KINDS if kind != "scalar"]),
    POLICIES,
    st.integers(1, 5),
    BRANCHES,
    st.booleans(),
    st.sampled_from(["first", "last"]),
    st.integers(4, 12),
    st.integers(3, 9),
)
def test_reuse_is_what_the_oracle_says(
    kind: str,
    slow: Hold | Interpolate,
    guidance: int,
    branches: HoldBranches | None,
    guided: bool,
    counted_from: Literal["first", "last"],
    steps: int,
    count: int,
) -> None:
    times = tuple(round(990 * 0.7**number) for number in range(steps))
    model = model_of(kind, steps, depth=3)
    method = "forward_with_cfg" if guided else "forward"
    optimized = transformed(model, HeadReuse(slow, guidance, branches, counted_from), method)
    if isinstance(slow, Hold):
        computed, width = list(range(0, steps, slow.every)), 1
    else:
        points = min(slow.points, steps)
        computed = [round(own * (steps - 1) / (points - 1)) for own in range(points)]
        width = {"linear": 2, "cubic": 4}[slow.order]
    held, whole = (1, ()) if branches is None else (branches.every, branches.whole)
    oracle = Oracle(model.net, times, computed, width, guidance, held, whole, counted_from == "last")
    for number in range(3):
        x, c = arguments(2 * (count + number), number)
        scale = (2.0,) if guided else ()
        found = denoised(getattr(optimized.net, method), x, times, c, *scale)
        # The first tells what is what, and how the times go on.
        if number:
            assert_close(found, oracle.guided(x, c, 2.0) if guided else oracle.plain(x, c))
    last = head_of(optimized, method).record.denoisings[-1]
    assert last.slow == len(computed)
    assert last.calls == "".join(oracle.letter(number, guided) for number in range(steps))


@torch.no_grad()
@pytest.mark.parametrize(("guidance", "letters"), [(1, "FHHFHHFHHF"), (3, "FhhFhhFhhF"), (4, "FhhcFhchFc")])
def test_what_held_branches_need_is_computed_and_no_more(guidance: int, letters: str) -> None:
    model = model_of("adaln", depth=3)
    reuse = HeadReuse(Interpolate(10), guidance, HoldBranches(3, whole=(0, 2)))
    optimized = transformed(model, reuse, "forward_with_cfg")
    for seed in range(2):
        denoised(optimized.net.forward_with_cfg, *three(8, TIMES, seed), 2.0)
    last = head_of(optimized, "forward_with_cfg").record.denoisings[-1]
    assert last.calls == letters
    # Products of a row: 4 -> 6 of the time, 5 -> 6 of the condition, 6 -> 18 modulates, 3 -> 6, 6 -> 6, 6 -> 3.
    condition, time, modulation, enter, layer, leave = 60, 48, 216, 36, 72, 36
    expected = 8 * condition + len(TIMES) * time
    for letter in letters:
        rows = 8 if letter in "FH" else 4
        # Where branches are held, the gate of the second alone is read, and its product has nothing to compute.
        expected += rows * (enter + leave + modulation)
        expected += rows * (3 * layer + 2 * modulation) if letter in "Fc" else 0
    assert last.flops == pytest.approx(expected)


@torch.no_grad()
def test_weights_and_modules_that_change_are_used() -> None:
    model = model_of("adaln")
    optimized = transformed(model, "exact")
    x, c = arguments(5)
    denoised(optimized.net, x, TIMES, c)
    model.net.modulations[0].weight.mul_(2)
    assert_close(denoised(optimized.net, x, TIMES, c), denoised(model.net, x, TIMES, c))
    model.net.layers[0].register_forward_hook(lambda module, args, output: output + 1)
    assert_close(denoised(optimized.net, x + 1, TIMES, c), denoised(model.net, x + 1, TIMES, c))
    assert_close(denoised(optimized.net, x, TIMES, c + 1), denoised(model.net, x, TIMES, c + 1))
    assert head_of(optimized).programs, "captured again"

"""A captured denoiser computes what the original does, and where it reuses, what the oracle says."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import marche_fx
from marche_fx import HeadReuse, Hold, HoldBranches, Interpolate
from tests.head.denoisers import KINDS, Denoiser, Model, denoised
from tests.head.oracle import Oracle

TIMES = tuple(range(990, 90, -90))


def model_of(kind: str, seed: int = 0, **sizes: int) -> Any:
    torch.manual_seed(seed)
    return Model(Denoiser(kind, **sizes).double()).eval()


def arguments(rows: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, dtype=torch.float64, generator=generator)
    return x, torch.randn(rows, 5, dtype=torch.float64, generator=generator)


def head_of(optimized: Any, method: str = "forward") -> Any:
    return optimized._marche_fx.heads[f"net.{method}"]


def transformed(model: Any, reuse: HeadReuse | str, method: str = "forward") -> Any:
    return marche_fx.transform(model, inner=f"net.{method}", reuse=reuse, compile=False)


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


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


def three(rows: int, times: tuple[int, ...], seed: int) -> tuple[Tensor, tuple[int, ...], Tensor]:
    x, c = arguments(rows, seed)
    return x, times, c


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


class Refused(Denoiser):
    def slow_values(self, t: Tensor, c: Tensor) -> list[Tensor]:
        return super().slow_values(t, c - c.mean(0))


class Centred(Denoiser):
    def slow_values(self, t: Tensor, c: Tensor) -> list[Tensor]:
        return [own - own.mean(0) for own in super().slow_values(t, c)]


class Branching(Denoiser):
    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return super().forward(x, t, c) if t[0] > 500 else x


class BySize(Denoiser):
    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return super().forward(x, t, c) if len(x) > 7 else x


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Centred, "rows meet in aten.mean"),
        (Branching, "branches on values of its arguments"),
        (BySize, "computes something else for another number of rows"),
    ],
)
def test_what_cannot_be_captured_is_told_and_runs_as_it_is(kind: type[Denoiser], reason: str) -> None:
    torch.manual_seed(0)
    model: Any = Model(kind("adaln").double()).eval()
    optimized = transformed(model, "exact")
    x, c = arguments(8)
    with pytest.warns(UserWarning, match=f"net.forward runs as it is: .*{reason}"):
        found = denoised(optimized.net, x, TIMES, c)
    assert_close(found, denoised(model.net, x, TIMES, c))
    assert reason in str(marche_fx.report(optimized))


@torch.no_grad()
def test_rows_that_meet_in_the_condition_alone_do_no_harm() -> None:
    torch.manual_seed(0)
    model: Any = Model(Refused("adaln").double()).eval()
    optimized = transformed(model, HeadReuse(Interpolate(10)))
    for seed in range(2):
        x, c = arguments(8, seed)
        assert_close(denoised(optimized.net, x, TIMES, c), denoised(model.net, x, TIMES, c))
    assert not len(head_of(optimized).refused)


class Mixing(Denoiser):
    """Rows meet in the noisy value."""

    def rest(self, x: Tensor, c: Tensor, slow: Any, held: Any = None) -> Tensor:
        return super().rest(x - x.mean(0), c, slow, held)


class OtherHalves(Denoiser):
    """Two halves that are not one noisy value."""

    def forward_with_cfg(self, x: Tensor, t: Tensor, c: Tensor, scale: float) -> Tensor:
        half = x[: len(x) // 2]
        found = self.forward(torch.cat([half, 0.5 * half]), t, c)
        conditional, unconditional = found.chunk(2)
        return torch.cat([conditional + scale * unconditional, unconditional])


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "reason"), [(Mixing, "rows meet in aten.mean"), (OtherHalves, "no cat of a noisy value with itself")]
)
def test_halves_that_are_none_are_told_and_computed_in_full(kind: type[Denoiser], reason: str) -> None:
    torch.manual_seed(0)
    model: Any = Model(kind("adaln").double()).eval()
    optimized = transformed(model, HeadReuse(guidance=3), "forward_with_cfg")
    expected = [denoised(model.net.forward_with_cfg, *three(8, TIMES, seed), 2.0) for seed in range(3)]
    with pytest.warns(UserWarning, match=f"both at every call, for all that guidance=3 asks: .*{reason}"):
        assert_close(denoised(optimized.net.forward_with_cfg, *three(8, TIMES, 0), 2.0), expected[0])
    for seed in range(1, 3):
        assert_close(denoised(optimized.net.forward_with_cfg, *three(8, TIMES, seed), 2.0), expected[seed])
    assert {*"".join(own.calls for own in head_of(optimized, "forward_with_cfg").record.denoisings)} == {"F"}
    assert reason in str(marche_fx.report(optimized))


@torch.no_grad()
def test_branches_of_a_denoiser_that_has_none_are_refused_by_name() -> None:
    class Plain(Denoiser):
        def rest(self, x: Tensor, c: Tensor, slow: Any, held: Any = None) -> Tensor:
            return self.leave(torch.tanh(self.enter(x)) * slow[0].chunk(3, -1)[0])

    torch.manual_seed(0)
    model: Any = Model(Plain("adaln").double()).eval()
    optimized = transformed(model, HeadReuse(branches=HoldBranches(2)))
    x, c = arguments(5)
    with pytest.warns(UserWarning, match=r"runs as it is: .*no residual branch to hold.*Leave branches out"):
        found = denoised(optimized.net, x, TIMES, c)
    assert_close(found, denoised(model.net, x, TIMES, c))


@torch.no_grad()
def test_a_method_that_denoises_nothing_is_told() -> None:
    model = model_of("adaln")
    optimized = marche_fx.transform(model, inner="net.enter.forward", reuse="exact", compile=False)
    for seed in range(31):
        optimized.net.enter(arguments(5, seed)[0])
    with pytest.warns(UserWarning, match=r"net.enter.forward runs as it is: in 32 calls no argument moved alike"):
        optimized.net.enter(arguments(5, 31)[0])


@torch.no_grad()
def test_a_wrong_result_is_an_equivalence_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from marche_fx.head.program import HeadProgram

    right = HeadProgram.denoise
    monkeypatch.setattr(HeadProgram, "denoise", lambda *args: ([own + 1e-3 for own in right(*args)[0]], []))
    optimized = transformed(model_of("adaln"), "exact")
    x, c = arguments(5)
    with pytest.raises(marche_fx.EquivalenceError, match=r"result 0 of net.forward differs"):
        denoised(optimized.net, x, TIMES, c)


def test_gradients_are_the_original_s() -> None:
    model = model_of("adaln")
    optimized = transformed(model, "exact")
    x, c = arguments(5)
    with pytest.warns(UserWarning, match="ran as it is where gradients are recorded"):
        optimized.net(x, torch.full((5,), 3), c).sum().backward()
    assert isinstance(model.net.leave.weight.grad, Tensor)


@torch.no_grad()
def test_a_time_that_is_a_plain_number_is_told() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor, t: int) -> Tensor:
            return self.layer(x) * t

    model: Any = Model(Plain()).eval()
    optimized = transformed(model, "exact")
    for t in range(8):
        optimized.net(torch.randn(4, 3), t)
    with pytest.warns(UserWarning, match="Pass numbers that change, as the timestep, as tensors"):
        optimized.net(torch.randn(4, 3), 8)


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

"""What cannot be captured or reused is told, and computed as it is."""

from __future__ import annotations

import random
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import HeadReuse, HoldBranches, Interpolate
from tests.head.denoisers import Denoiser, Model, denoised
from tests.head.heads import TIMES, arguments, assert_close, head_of, model_of, three, transformed


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


class Tossing(Denoiser):
    """Leaves itself out by the toss of a coin."""

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        return super().forward(x, t, c) * float(random.random() < 0.5)


@torch.no_grad()
def test_a_denoiser_that_draws_from_python_is_refused_or_runs_as_it_is() -> None:
    x, c = arguments(5)
    told = []
    for seed in range(6):
        random.seed(seed)
        optimized = transformed(Model(Tossing("adaln").double()).eval(), "exact")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                denoised(optimized.net, x, TIMES, c)
            except marche_fx.EquivalenceError as error:
                told.append(str(error))
            else:
                # Its traces differed.
                told += [message for own in caught if "net.forward runs as it is" in (message := str(own.message))]
    assert len(told) == 6
    assert any("net.forward draws numbers from random or numpy.random" in own for own in told)


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

"""Captures of a denoiser: no more than there is room for, told when dropped, and none that a denoising goes on with."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx.head.captured import MOST_ANNOUNCED
from marche_fx.head.roles import TURNS
from tests.head.denoisers import Model
from tests.head.heads import TIMES, assert_close, head_of

ROWS, CHANNELS, WIDTH = 5, 3, 6
SHORT = TIMES[:5]


class Patches(nn.Module):
    """``x [R, P, C], t [R], c [R, W]`` to ``[R, P, C]``: each number P of patches is another kind of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.modulation = nn.Linear(WIDTH, 2 * WIDTH)
        self.enter, self.leave = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(c + (0.01 * t[:, None]).sin())).chunk(2, -1)
        h = self.enter(x)
        return self.leave(h + torch.tanh(h * (1 + scale[:, None]) + shift[:, None]))


def optimize(most: int) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = Model(Patches().double()).eval()
    return model, marche_fx.transform(model, inner="net.forward", reuse="exact", compile=False, max_captures=most)


def calls(net: Any, patches: int, times: Sequence[int], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, patches, CHANNELS, dtype=torch.float64, generator=generator)
    c = torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=generator)
    found = []
    for time in times:
        found.append(net(x, torch.full((ROWS,), float(time)), c))
        x = x + 0.1 * found[-1].sin()
    return found


def denoise(model: Any, optimized: Any, patches: int, seed: int = 0) -> None:
    """Twice, as the original does: the first tells which argument is what, and the second of which times the rest."""
    for own in (seed, seed + 1):
        assert_close(calls(optimized.net, patches, SHORT, own), calls(model.net, patches, SHORT, own))


def kinds(optimized: Any) -> list[int]:
    return [own.captured.capture.inputs[0].value.shape[1] for own in head_of(optimized).programs.values()]


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_of_shapes_that_vary_those_go_that_were_not_used_for_longest() -> None:
    model, optimized = optimize(2)
    for patches in (2, 3, 4, 5):
        denoise(model, optimized, patches)
        denoise(model, optimized, patches, seed=5)
    assert kinds(optimized) == [4, 5]
    denoise(model, optimized, 4)
    denoise(model, optimized, 6)
    assert kinds(optimized) == [4, 6]
    denoise(model, optimized, 2)
    assert head_of(optimized).known.dropped == 4, "what was dropped is captured again"


@torch.no_grad()
def test_what_is_dropped_is_freed_and_said_once_and_in_the_report() -> None:
    model, optimized = optimize(1)
    head, freed, told = head_of(optimized), [], []
    for patches in range(2, 9):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            denoise(model, optimized, patches)
            denoise(model, optimized, patches, seed=5)
        told += [str(own.message) for own in caught if "more than 1 kinds of arguments" in str(own.message)]
        freed.append(weakref.ref([*head.programs.values()][-1]))
    gc.collect()
    # Of the last denoisings of a thread some may yet go on.
    assert all(own() is None for own in freed[: -1 - TURNS])
    assert len(head.programs) <= 1 + TURNS
    assert len(told) == 1
    assert told[0].startswith("net.forward was captured for more than 1 kinds of arguments")
    notes = marche_fx.report(optimized).notes
    assert f"net.forward: {head.known.dropped} captures dropped for others, since max_captures=1" in notes


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_a_denoising_that_others_come_between_goes_on() -> None:
    model, optimized = optimize(1)
    denoise(model, optimized, 2)
    head = head_of(optimized)
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(ROWS, 2, CHANNELS, dtype=torch.float64, generator=generator)
    c = torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=generator)

    def call(time: int) -> None:
        t = torch.full((ROWS,), float(time))
        assert_close([optimized.net(x, t, c)], [model.net(x, t, c)])

    call(SHORT[0])
    (held,) = head.programs.values()
    record = head.record.denoisings[-1]
    denoise(model, optimized, 3)
    assert held in head.programs.values()
    for time in SHORT[1:]:
        x = x + 1
        call(time)
    assert record.calls == "F" * len(SHORT), "the same denoising"
    assert held in head.programs.values()


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
def test_schedules_that_nobody_follows_are_forgotten() -> None:
    model, optimized = optimize(4)
    head = head_of(optimized)
    denoise(model, optimized, 2)
    for number in range(2 * TURNS):
        times = [own + number for own in SHORT]
        for seed in range(2):
            head.expect([float(own) for own in times])
            calls(optimized.net, 2, times, 10 * number + seed)
    gc.collect()
    (known,) = (own for _, own in head.known.items())
    assert 0 < len(known.announced) <= MOST_ANNOUNCED
    assert len(head.trusted) <= len(known.announced) + 1

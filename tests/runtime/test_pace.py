"""Sessions that take longer than the original would are told so."""

from __future__ import annotations

import time
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import FullRefresh, SelectiveRefresh, transform
from marche_fx.api.optimization import optimization_of
from marche_fx.runtime.pace import FEWEST, SHORT, time_original
from tests.networks import Transformer

TOKENS, WIDTH = 40, 8


class Sleeping(Transformer):
    """Takes its time where it is called as it is: a captured step does not sleep."""

    def forward(self, x: Tensor, *mask: Tensor) -> Tensor:
        time.sleep(0.02)
        return super().forward(x, *mask)


def decode(optimized: nn.Module, steps: int = FEWEST + 1) -> list[str]:
    """What a user is told who reads one row of each call."""
    torch.manual_seed(0)
    x = torch.randn(1, TOKENS, WIDTH)
    with warnings.catch_warnings(record=True) as caught, torch.no_grad(), marche_fx.decoding(optimized):
        warnings.simplefilter("always")
        for step in range(steps):
            x = x.index_fill(1, torch.tensor([step]), float(step))
            optimized(x)[:, step + 1] + 0
    return [str(own.message) for own in caught if "took" in str(own.message)]


def made(refresh: marche_fx.RefreshPolicy | None = None) -> tuple[nn.Module, Any]:
    """A model whose captured step runs eagerly, and that step, which says that it is compiled."""
    optimized = transform(Transformer(TOKENS, WIDTH, 2).eval(), refresh=refresh, compile=False)
    decode(optimized)
    step = optimization_of(optimized).steps["forward"]
    step.method.settings.compile = True
    return optimized, step


@pytest.mark.parametrize(
    ("original", "options", "is_told"),
    [
        (1e-9, {}, True),
        (10.0, {}, False),
        (None, {}, False),
        (1e-9, {"steps": FEWEST - 1}, False),
    ],
    ids=["slower", "faster", "not known", "few calls"],
)
def test_who_decodes_slower_than_the_original_is_told(
    original: float | None, options: dict[str, int], is_told: bool
) -> None:
    optimized, step = made()
    (program,) = step.programs
    assert program.original_seconds is None, "only compiled steps are to be fast"
    program.original_seconds = original
    found = decode(optimized, **options)
    assert [own.startswith("a call of Transformer.forward took ") for own in found] == [True] * is_told
    assert decode(optimized, **options) == [], "once"


def test_nothing_is_told_of_sessions_that_are_to_be_exact() -> None:
    optimized, step = made(FullRefresh())
    (program,) = step.programs
    program.original_seconds = 1e-9
    assert decode(optimized) == []


def test_the_original_is_called_again_where_it_is_short() -> None:
    (program,) = made()[1].programs
    calls: list[int] = []
    time_original(program, torch.device("cpu"), 2 * SHORT, lambda: calls.append(1))
    time_original(program, torch.device("cuda"), 1e-3, lambda: calls.append(1))
    assert (calls, program.original_seconds) == ([], None)
    time_original(program, torch.device("cpu"), 1e-3, lambda: calls.append(1))
    assert calls == [1]
    assert 0 < program.original_seconds < 1e-3


@pytest.mark.parametrize("kind", [Transformer, Sleeping])
def test_times_are_those_of_compiled_steps_and_of_the_original(kind: type[Transformer]) -> None:
    optimized = transform(kind(TOKENS, WIDTH, 2).eval(), refresh=SelectiveRefresh(0.2))
    found = decode(optimized)
    # Two layers of width 8 compute next to nothing.
    assert len(found) == (kind is Transformer)
    assert all(own in marche_fx.report(optimized).warnings for own in found)

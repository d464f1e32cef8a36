"""Containers, counters and what hooks keep cost no captures: a step is captured once."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx.api import captures as of_steps
from marche_fx.passes.capture.leftovers import is_traced
from tests.api.test_untouched import Pair, Shares
from tests.around import EAGER, Around, X, captures, optimize, same, transformer


@torch.no_grad()
def test_settings_that_layers_share_reach_the_captured_step_in_the_next_session() -> None:
    model: Any = Shares().eval()
    optimized = optimize(model)
    assert same(optimized(X), model(X))
    for change in (
        lambda: model.inner.settings.update(scale=0.5),
        lambda: model.inner.queue.__setitem__(0, 2.0),
        lambda: model.inner.counts["a"].__setitem__(0, 3.0),
        lambda: setattr(model.inner, "pair", Pair(4.0, [])),
    ):
        change()
        assert same(optimized(X), model(X))
    assert captures(optimized) == 1


@torch.no_grad()
def test_containers_of_every_kind_cost_one_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    made, count = of_steps.make_plan, []

    def counting(*args: Any, **kwargs: Any) -> Any:
        count.append(args)
        return made(*args, **kwargs)

    monkeypatch.setattr(of_steps, "make_plan", counting)
    optimized = optimize(Shares().eval(), EAGER)
    for _ in range(3):
        with marche_fx.decoding(optimized):
            optimized(X)
    assert len(count) == 1


@torch.no_grad()
def test_what_hooks_keep_for_somebody_else_is_no_state() -> None:
    model, kept = transformer(), list[Tensor]()
    model.head.register_forward_hook(lambda module, args, output: kept.append(output))
    optimized = optimize(model)
    for _ in range(3):
        with marche_fx.decoding(optimized):
            assert same(optimized(X), model(X))
    assert captures(optimized) == 1
    assert not any(map(is_traced, kept))


COUNTED = {"calls": 0}


def counts(model: Any, x: Tensor) -> Tensor:
    COUNTED["calls"] += 1
    return model.inner(x)


def on_collection(phase: str, info: Any) -> None:
    COUNTED["calls"] += 1


@pytest.mark.parametrize("collected", [False, True])
@torch.no_grad()
def test_counters_outside_of_the_model_cost_no_captures(collected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made, count = of_steps.make_plan, []

    def counting(*args: Any, **kwargs: Any) -> Any:
        count.append(args)
        return made(*args, **kwargs)

    def collects(model: Any, x: Tensor) -> Tensor:
        gc.collect()
        return model.inner(x)

    monkeypatch.setattr(of_steps, "make_plan", counting)
    model = Around(collects if collected else counts)
    optimized = optimize(model)
    gc.callbacks.append(on_collection)
    try:
        for _ in range(3):
            with marche_fx.decoding(optimized):
                assert same(optimized(X), model(X))
    finally:
        gc.callbacks.remove(on_collection)
    assert len(count) == 1

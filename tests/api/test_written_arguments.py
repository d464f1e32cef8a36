"""What a step writes into its arguments stands there after the call, as after one of the original."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx import ArgumentError, UnsupportedModelError
from marche_fx.api import captures
from tests.around import EAGER, MOVED, TOKENS, Around, X, optimize, refused, same

HIDDEN = torch.zeros(2, TOKENS, dtype=torch.bool)
HIDDEN[:, 5:] = True


def shift(model: Any, x: Tensor, hidden: Tensor) -> Tensor:
    x.add_(1)
    return model.inner(x)


def mask(model: Any, x: Tensor, hidden: Tensor) -> Tensor:
    x[hidden] = 0
    return model.inner(x)


def by_constant(model: Any, x: Tensor, hidden: Tensor) -> Tensor:
    result = model.inner(x)
    x[:, :3] = torch.tensor([1.0, 2.0, 3.0])[:, None]
    hidden.logical_not_()
    return result


def part(model: Any, x: Tensor, hidden: Tensor) -> Tensor:
    rows = x[:, 2:4]
    rows.mul_(hidden[:, 2:4, None] + 2)
    return model.inner(x) + rows.sum()


def return_it(model: Any, x: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    return model.inner(x), x.clamp_(min=0)


WRITES = [shift, mask, by_constant, part, return_it]


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("forward", WRITES)
@torch.no_grad()
def test_arguments_hold_what_the_original_leaves_there(forward: Callable[..., Any], by_name: bool) -> None:
    model = Around(forward)
    optimized = optimize(model)
    with marche_fx.decoding(optimized):
        for own in (X, MOVED, MOVED):
            ours, theirs = (own.clone(), HIDDEN.clone()), (own.clone(), HIDDEN.clone())
            found = optimized(ours[0], hidden=ours[1]) if by_name else optimized(*ours)
            assert all(torch.equal(a, b) for a, b in zip(ours, (own, HIDDEN))) is False, "before anything is read"
            assert same(found, model(*theirs))
            assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


@pytest.mark.parametrize("forward", WRITES[:4])
@torch.no_grad()
def test_a_step_in_part_writes_all_of_it(forward: Callable[..., Any]) -> None:
    model = Around(forward)
    optimized = optimize(model, EAGER)
    with marche_fx.decoding(optimized):
        optimized(X.clone(), HIDDEN.clone())
        ours, theirs = (MOVED.clone(), HIDDEN.clone()), (MOVED.clone(), HIDDEN.clone())
        rows = optimized(*ours)[:, 3]
        model(*theirs)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
        assert rows.shape == (2, 3)


@torch.no_grad()
def test_a_loop_may_hand_the_written_argument_to_the_next_step() -> None:
    model = Around(shift)
    optimized = optimize(model)
    ours, theirs = X.clone(), X.clone()
    with marche_fx.decoding(optimized):
        late = []
        for _ in range(3):
            late.append((optimized(ours, HIDDEN), model(theirs, HIDDEN)))
        assert all(same(*own) for own in late[-1:])
    assert torch.equal(ours, theirs)


@torch.no_grad()
def test_an_argument_in_a_dict_is_written_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(model: Any, x: Tensor, store: dict[str, Tensor]) -> Tensor:
        store["last"][:] = x
        return model.inner(x)

    model = Around(forward)
    first, second = optimize(model), optimize(model)
    for optimized in (first, second):
        store = {"last": torch.zeros_like(X)}
        if optimized is second:
            marche_fx.save_captures(first, tmp_path / "steps")
            assert marche_fx.load_captures(second, tmp_path / "steps")
            monkeypatch.setattr(captures, "make_plan", None)
        optimized(X, store)
        assert torch.equal(store["last"], X)


def of_weights(model: Any, x: Tensor, store: dict[str, Tensor]) -> Tensor:
    x = model.inner(x)
    store["last"][:] = x.mean(-1)
    return x


def drawn(model: Any, x: Tensor, store: dict[str, Tensor]) -> Tensor:
    store["last"].uniform_()
    return model.inner(x)


def test_what_is_computed_of_weights_or_drawn_is_not_written() -> None:
    store = {"last": torch.zeros(2, TOKENS)}
    words = r"writes argument 'store' in .*of arguments alone"
    refused(Around(of_weights), UnsupportedModelError, words, X, store=store)
    refused(Around(drawn), UnsupportedModelError, "draws random numbers", X, store=store)


def test_arguments_that_share_memory_with_a_written_one_are_refused() -> None:
    x = X.clone()
    refused(Around(lambda model, x, y: model.inner(x.add_(1) + y)), ArgumentError, "shares memory", x, x[:])

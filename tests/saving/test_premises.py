"""A saved capture holds for what it was made of: outcomes of branches, tables, what is read beside the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx.api import captures as of_steps
from tests.around import TOKENS, Around, X, captures, optimize, same
from tests.passes.capture.test_branches import ALL, QUESTIONS, SOME

TABLES: dict[int, Tensor] = {}
SCALES = {"x": 2.0}


def table(count: int) -> Tensor:
    return torch.arange(count)[:, None] / 10


def from_global(model: Any, x: Tensor) -> Tensor:
    return model.inner(x + TABLES.setdefault(x.shape[1], table(x.shape[1])))


def from_attribute(model: Any, x: Tensor) -> Tensor:
    if not hasattr(model, "table"):
        model.table = table(x.shape[1])
    return model.inner(x + model.table)


def scaled(model: Any, x: Tensor) -> Tensor:
    return model.inner(x * SCALES["x"])


def saved(model: Around, path: Path, *calls: tuple[Any, ...]) -> None:
    optimized = optimize(model)
    for args in calls:
        optimized(*args)
    marche_fx.save_captures(optimized, path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    TABLES.clear()
    SCALES["x"] = 2.0
    return tmp_path / "steps"


@pytest.mark.parametrize("question", QUESTIONS)
@torch.no_grad()
def test_branches_on_arguments_are_saved(
    question: Callable[[Tensor], bool], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(model: Any, x: Tensor, mask: Tensor) -> Tensor:
        return model.inner(x * mask[..., None] if question(mask) else x + 1)

    saved(Around(forward), path, (X, ALL), (X, SOME))
    model = Around(forward)
    optimized = optimize(model)
    assert marche_fx.load_captures(optimized, path)
    monkeypatch.setattr(of_steps, "make_plan", None)
    for mask in (SOME, ALL):
        assert same(optimized(X, mask), model(X, mask))
    assert captures(optimized) == 2


MAKES = [from_global, from_attribute, scaled]


@pytest.mark.parametrize("forward", MAKES)
@torch.no_grad()
def test_tables_and_surroundings_that_are_made_again_cost_no_capture(
    forward: Callable[..., Tensor], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(Around(forward), path, (X,))
    TABLES.clear()
    model = Around(forward)
    optimized = optimize(model)
    assert marche_fx.load_captures(optimized, path)
    monkeypatch.setattr(of_steps, "make_plan", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(optimized(X), model(X))


def other_global(model: Any) -> None:
    TABLES[TOKENS] = table(TOKENS) + 1


def other_attribute(model: Any) -> None:
    model.table = table(TOKENS) + 1


def other_scale(model: Any) -> None:
    SCALES["x"] = 3.0


def loaded_in_another_process(forward: Callable[..., Tensor], path: Path) -> tuple[Around, Any]:
    """A model of which a capture was saved, as a process begins with it, and the model that loaded this."""
    saved(Around(forward), path, (X,))
    TABLES.clear()
    model = Around(forward)
    optimized = marche_fx.transform(model, refresh="exact", compile=False, verify=False)
    assert marche_fx.load_captures(optimized, path)
    return model, optimized


CHANGES = list(zip(MAKES, [other_global, other_attribute, other_scale], strict=True))


@pytest.mark.parametrize(("forward", "change"), CHANGES)
@torch.no_grad()
def test_what_changed_between_processes_is_captured_anew(
    forward: Callable[..., Tensor], change: Callable[[Any], None], path: Path
) -> None:
    model, optimized = loaded_in_another_process(forward, path)
    change(model)
    change(optimized)
    if change is other_attribute:
        assert same(optimized(X), model(X)), "the model itself is another one than was loaded"
    else:
        with pytest.warns(UserWarning, match=r"capture of \w+\.forward is not used: '\w+(\[20\])?' of tests\.saving"):
            assert same(optimized(X), model(X))


@pytest.mark.parametrize(("forward", "change"), CHANGES)
@torch.no_grad()
def test_what_changed_after_a_loaded_capture_ran_is_seen_by_the_next_session(
    forward: Callable[..., Tensor], change: Callable[[Any], None], path: Path
) -> None:
    model, optimized = loaded_in_another_process(forward, path)
    assert same(optimized(X), model(X))
    change(model)
    change(optimized)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(optimized(X), model(X))


@torch.no_grad()
def test_a_model_that_changed_since_its_capture_is_not_saved_as_it_was(path: Path) -> None:
    model = Around(scaled)
    optimized = optimize(model)
    optimized(X)
    SCALES["x"] = 3.0
    with pytest.raises(marche_fx.ArgumentError, match="changed since"):
        marche_fx.save_captures(optimized, path)

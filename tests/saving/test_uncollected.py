"""No garbage is looked for while captures are read, and it is looked for again after that."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import marche_fx
from marche_fx.saving import captures
from tests.around import EAGER, X, transformer


@contextmanager
def looks() -> Iterator[list[int]]:
    """The generations that are looked through inside."""
    found: list[int] = []

    def note(phase: str, told: dict[str, Any]) -> None:
        if phase == "start":
            found.append(told["generation"])

    gc.callbacks.append(note)
    try:
        yield found
    finally:
        gc.callbacks.remove(note)


def optimized() -> Any:
    return marche_fx.transform(transformer(), refresh=EAGER, compile=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    own = optimized()
    with torch.no_grad(), marche_fx.decoding(own):
        own(X).sum()
    marche_fx.save_captures(own, tmp_path / "steps")
    return tmp_path / "steps"


def test_no_garbage_is_looked_for_while_captures_are_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, read, during = optimized(), captures.read, []

    def reading(*arguments: Any) -> Any:
        gc.collect()
        with looks() as found:
            result = read(*arguments)
        during.append(found)
        return result

    monkeypatch.setattr(captures, "read", reading)
    with looks() as found:
        assert marche_fx.load_captures(own, path)
        objects = [[own] for _ in range(100_000)]
    assert during == [[]]
    assert len(found) > 1, f"and then it is, with {len(objects)} objects more"


def test_it_is_looked_for_after_a_file_that_is_not_used(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="is damaged"):
        assert not marche_fx.load_captures(optimized(), path)
    assert gc.isenabled()


def test_whoever_looks_for_none_goes_on_so(path: Path) -> None:
    gc.disable()
    try:
        assert marche_fx.load_captures(optimized(), path)
        assert not gc.isenabled()
    finally:
        gc.enable()

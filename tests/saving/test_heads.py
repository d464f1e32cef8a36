"""A denoiser that one process captured serves the next."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import marche_fx
from marche_fx.api.optimization import optimization_of
from marche_fx.head import step as head_step
from tests.head.denoisers import denoised
from tests.head.heads import TIMES, arguments, assert_close, head_of, model_of, transformed

METHOD = "forward_with_cfg"


def run(optimized: Any, seed: int = 0) -> list[torch.Tensor]:
    x, c = arguments(8, seed)
    with torch.no_grad():
        return denoised(getattr(optimized.net, METHOD), x, TIMES, c, 2.0)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    optimized = transformed(model_of("adaln"), "lazymar", METHOD)
    run(optimized)
    path = tmp_path_factory.mktemp("saved") / "head"
    marche_fx.save_captures(optimized, path)
    return path


@pytest.fixture
def no_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("captured again")

    monkeypatch.setattr(head_step, "capture_any_rows", refused)


@pytest.mark.parametrize("reuse", ["exact", "balanced", "lazymar"])
def test_a_saved_denoiser_is_not_captured_again(written: Path, no_capture: None, reuse: str) -> None:
    model = model_of("adaln", seed=5)
    optimized = transformed(model, reuse, METHOD)
    assert marche_fx.load_captures(optimized, written)
    found = run(optimized)
    head = head_of(optimized, METHOD)
    assert head.record.as_is == 0, "which argument is what, is known"
    if reuse == "exact":
        assert_close(found, run(model))
    run(optimized, 1)
    assert (
        head.record.denoisings[-1].calls
        == {"exact": 10 * "F", "balanced": "FcccFcccFc", "lazymar": "FhF" + 6 * "h" + "F"}[reuse]
    )
    # What was restored is saved again.
    again = written.with_name(f"again-{reuse}")
    marche_fx.save_captures(optimized, again)
    third = transformed(model, reuse, METHOD)
    assert marche_fx.load_captures(third, again)
    assert_close(run(third), found)


def test_a_denoiser_of_another_process_is_the_same(written: Path, no_capture: None) -> None:
    program = (
        "import torch, marche_fx\n"
        "from tests.saving.test_heads import *\n"
        f"optimized = transformed(model_of('adaln'), 'lazymar', METHOD)\n"
        f"assert marche_fx.load_captures(optimized, {str(written)!r})\n"
        "run(optimized)\n"
        "assert head_of(optimized, METHOD).record.as_is == 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


def test_calls_of_another_kind_are_captured(written: Path) -> None:
    model = model_of("adaln").float()
    optimized = transformed(model, "exact", METHOD)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        used = marche_fx.load_captures(optimized, written)
    assert not used, "weights of another kind are another model"
    x, c = (own.float() for own in arguments(8))
    with torch.no_grad():
        denoised(getattr(optimized.net, METHOD), x, TIMES, c, 2.0)
    assert head_of(optimized, METHOD).record.as_is == 2


SCALE = [1.0]


class Scaled(torch.nn.Linear):
    """Reads what stands beside the model."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return SCALE[0] * super().forward(x)


def scaled() -> Any:
    model = model_of("adaln")
    model.net.leave.__class__ = Scaled
    return model


def test_what_was_captured_under_other_premises_is_captured_anew(tmp_path: Path) -> None:
    optimized = transformed(scaled(), "exact", METHOD)
    run(optimized)
    marche_fx.save_captures(optimized, tmp_path / "head")
    SCALE[0] = 3.0
    try:
        model = scaled()
        optimized = transformed(model, "exact", METHOD)
        assert marche_fx.load_captures(optimized, tmp_path / "head")
        with pytest.warns(UserWarning, match=r"a saved capture of net.forward_with_cfg is not used: 'SCALE'"):
            found = run(optimized)
        assert_close(found, run(model))
    finally:
        SCALE[0] = 1.0


def test_nothing_captured_is_nothing_to_save(tmp_path: Path) -> None:
    optimized = transformed(model_of("adaln"), "exact", METHOD)
    with pytest.raises(marche_fx.ArgumentError, match="nothing has been captured yet"):
        marche_fx.save_captures(optimized, tmp_path / "head")
    assert optimization_of(optimized).heads

"""A study of the bundled model from beginning to end, over few pieces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from marche_fx import ArgumentError
from marche_fx.evaluate.study.lines import Lines
from marche_fx.evaluate.text import VARIANTS, TextRow, TextSettings, run, study_text
from marche_fx.evaluate.text.tables import cells
from marche_fx.models.text import TextDiffusion
from tests.evaluate.tiny import silent, written

from .short import MODEL, short

LOOPS = [short("low-confidence"), short("random")]
NAMES = ("original", "exact", "half the steps", "default")
CHOSEN = {name: VARIANTS[name] for name in NAMES}
SETTINGS = TextSettings(batch=1)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def rows(out: Path) -> list[TextRow]:
    return study_text(MODEL, out, LOOPS, CHOSEN, SETTINGS, console=silent())


def test_there_is_a_row_for_each_loop_and_variant(rows: list[TextRow], out: Path) -> None:
    assert [(row.loop, row.variant) for row in rows] == [(loop.name, name) for loop in LOOPS for name in NAMES]
    for original, exact, half, default in (rows[:4], rows[4:]):
        assert original.same.low == exact.same.low == exact.identical == 1
        assert original.seconds_ratio == 1
        assert half.rows == 0.5
        assert default.results <= default.rows < 1
        assert default.seconds_ratio is not None
    for loop, own in zip(LOOPS, (rows[:4], rows[4:])):
        content = json.loads((out / f"{loop.name}.json").read_text())
        assert [TextRow.from_dict(row) for row in content["rows"]] == own
        assert content["settings"].items() >= {"batch": 1, "seed": 0, "choosing": False}.items()
        assert (out / f"{loop.name}.png").read_bytes().startswith(b"\x89PNG")


def test_a_study_that_stopped_goes_on_to_the_same_figures(
    rows: list[TextRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    real = run.nats_of_answers

    def stopping(*args: Any, **kwargs: Any) -> torch.Tensor:
        made.append(1)
        if len(made) == 4:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(run, "nats_of_answers", stopping)
        with pytest.raises(KeyboardInterrupt):
            study_text(MODEL, tmp_path, LOOPS[:1], CHOSEN, SETTINGS, console=silent())
    before = Lines(tmp_path / "lines.jsonl").known
    assert len(before) == 3
    again = study_text(MODEL, tmp_path, LOOPS[:1], CHOSEN, SETTINGS, console=silent())
    assert before.items() <= Lines(tmp_path / "lines.jsonl").known.items()
    assert [replace(row, seconds_ratio=None) for row in again] == [replace(row, seconds_ratio=None) for row in rows[:4]]


def test_a_finished_study_is_told_again_without_decoding(
    rows: list[TextRow], out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "nats_of_answers", None)
    console = silent()
    assert study_text(MODEL, out, LOOPS, CHOSEN, SETTINGS, console=console) == rows
    told = written(console)
    assert "low-confidence: 2 prompts" in told
    for cell in cells(rows[3]):
        assert cell in told
    assert max(map(len, told.splitlines())) <= 120


def test_results_of_other_settings_or_weights_are_refused(rows: list[TextRow], out: Path) -> None:
    with pytest.raises(ArgumentError, match="seed was 0 and is 1"):
        study_text(MODEL, out, LOOPS, CHOSEN, replace(SETTINGS, seed=1), console=silent())
    with pytest.raises(ArgumentError, match=r"model was .* and is"):
        study_text(TextDiffusion().eval(), out, LOOPS, CHOSEN, SETTINGS, console=silent())


def test_what_cannot_be_studied_is_refused(tmp_path: Path) -> None:
    without = {"default": VARIANTS["default"]}
    with pytest.raises(ArgumentError, match="compared with 'original', which is not among default"):
        study_text(MODEL, tmp_path, LOOPS, without, SETTINGS, console=silent())
    with pytest.raises(ArgumentError, match="batch must be at least 1, got 0"):
        TextSettings(batch=0)

"""A study of a tiny model from beginning to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from marche_fx import ArgumentError
from marche_fx.evaluate.study import StudySettings
from marche_fx.evaluate.study.lines import Lines
from marche_fx.evaluate.tokens import VARIANTS, TokenRow, study_tokens
from marche_fx.evaluate.tokens.tables import cells
from marche_fx.models.tokens import TokenGarments
from tests.evaluate.tiny import silent, written

from .short import GARMENTS, short

LOOP = short()
NAMES = ("original", "exact", "half the steps", "default")
CHOSEN = {name: VARIANTS[name] for name in NAMES}
SETTINGS = StudySettings(batch=2)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def rows(out: Path) -> list[TokenRow]:
    return study_tokens(GARMENTS, out, [LOOP], CHOSEN, SETTINGS, console=silent())


def test_there_is_a_row_for_each_variant(rows: list[TokenRow], out: Path) -> None:
    assert [(row.loop, row.variant, row.images) for row in rows] == [("short", name, 4) for name in NAMES]
    original, exact, half, default = rows
    assert exact.same.low == exact.identical == 1
    assert exact.frechet == original.frechet
    assert exact.labels == original.labels
    assert half.flops == 0.5
    assert default.results <= default.rows < 1
    content = json.loads((out / "short.json").read_text())
    assert [TokenRow.from_dict(row) for row in content["rows"]] == rows
    assert content["settings"].items() >= {"batch": 2, "seed": 0}.items()
    for name in ("short.png", "short-same.png", "short-garments.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_more_images_are_added_to_those_that_are_there(rows: list[TokenRow], out: Path) -> None:
    before = dict(Lines(out / "lines.jsonl").known)
    more = study_tokens(GARMENTS, out, [replace(LOOP, images=6)], CHOSEN, SETTINGS, console=silent())
    after = Lines(out / "lines.jsonl").known
    assert before.items() <= after.items()
    assert len(after) == len(before) + len(NAMES)
    assert [row.images for row in more] == [6] * 4
    console = silent()
    assert study_tokens(GARMENTS, out, [LOOP], CHOSEN, SETTINGS, console=console) == rows
    for cell in cells(rows[3]):
        assert cell in written(console)


def test_results_of_other_settings_or_weights_are_refused(rows: list[TokenRow], out: Path) -> None:
    with pytest.raises(ArgumentError, match="seed was 0 and is 1"):
        study_tokens(GARMENTS, out, [LOOP], CHOSEN, replace(SETTINGS, seed=1), console=silent())
    with pytest.raises(ArgumentError, match=r"garments was .* and is"):
        study_tokens(TokenGarments(), out, [LOOP], CHOSEN, SETTINGS, console=silent())

import json
from pathlib import Path

import pytest

from marche_fx.evaluate.tokens import command
from tests.models.test_commands import run

from .short import GARMENTS, short


def test_study_tokens_prints_and_writes_a_row_for_each_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LOOPS", {"short": short()})
    monkeypatch.setattr(command, "load_garment_tokens", lambda: GARMENTS)
    output = run("study-tokens", "--out", tmp_path, "--images", 3, "--batch", 3, "--variant", "a quarter of the steps")
    assert "short: 3 images" in output
    rows = json.loads((tmp_path / "short.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["original", "a quarter of the steps"]

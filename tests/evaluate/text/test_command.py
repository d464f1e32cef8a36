import json
from pathlib import Path

import pytest

from marche_fx.evaluate.text import command
from tests.models.test_commands import run

from .short import short


def test_study_text_prints_and_writes_a_row_for_each_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.LOOPS, "random", short("random"))
    output = run(
        "study-text", "--out", tmp_path, "--loop", "random", "--prompts", 1, "--choosing", "--variant", "ML-Cache"
    )
    assert "random: 1 prompts" in output
    content = json.loads((tmp_path / "random.json").read_text())
    assert [row["variant"] for row in content["rows"]] == ["original", "ML-Cache"]
    assert content["settings"]["choosing"]

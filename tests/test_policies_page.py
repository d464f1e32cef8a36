"""docs/policies.md: its programs run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pages import ran_blocks


@pytest.mark.slow
def test_the_snippets_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(list(ran_blocks("docs/policies.md"))) >= 8
    assert {path.name for path in tmp_path.iterdir()} == {"choices.png", "encoder.png", "policy.json"}

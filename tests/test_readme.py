"""The blocks of the README run as they stand."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
OFFLINE = [own for own in BLOCKS if "from_pretrained(" not in own]
"""All but those that load weights from elsewhere."""


def test_the_first_block_runs_offline_and_is_short() -> None:
    assert BLOCKS[0] is OFFLINE[0]
    assert len(BLOCKS[0].splitlines()) <= 15


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(OFFLINE)))
def test_a_block_runs_as_it_stands(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        exec(compile(OFFLINE[number], f"README.md, block {number}", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_a_whole_program(block: str) -> None:
    compile(block, "README.md", "exec")
    assert "import marche_fx" in block

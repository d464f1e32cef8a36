"""The blocks of the README, and of the pages on sessions and on the report, run as they stand."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import pytest


def blocks_of(page: str) -> list[str]:
    text = (Path(__file__).parents[1] / page).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


BLOCKS = blocks_of("README.md")
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


@pytest.mark.slow
def test_the_block_on_the_report_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks_of("docs/report.md")
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(block, "docs/report.md", "exec"), names)
    assert (tmp_path / "step.html").read_text(encoding="utf-8") == names["report"].html()


@pytest.mark.slow
def test_the_blocks_on_sessions_run_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {"__name__": "__main__"}
    printed = []
    for number, block in enumerate(blocks_of("docs/sessions.md")):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            exec(compile(block, f"docs/sessions.md, block {number}", "exec"), names)
        printed.append(capsys.readouterr().out)
    _, kinds, late, verdict, moving, streams, child, lengths, finished, grown, halved, _ = printed
    assert "'attention': 49152" in halved.partition("} {")[0]
    assert "'attention': 98304" in halved.partition("} {")[2]
    assert all(own in kinds for own in ("MAR", "LLaDA", "MaskGIT", "'time'"))
    assert int(late.split("%")[0]) < 50
    assert "read rows at most 0 steps old" in finished
    assert "3 new lengths went on with 96 rows of a sample" in grown
    assert "read rows at most 0 steps old" in late
    assert "% of the rows; read rows at most 0 steps old; 1 stream" in verdict
    assert "100%" not in moving
    assert streams == "2\n"
    assert "model.net = marche_fx.transform(model.net)" in child
    assert "100%" not in child
    assert "traced 2 times, and 4 captures made without a trace" in lengths

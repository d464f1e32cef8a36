"""The blocks of the README, and of the pages on sessions and on the report, run as they stand."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from tests.pages import blocks_of, is_offline, ran_blocks

BLOCKS = blocks_of("README.md")
OFFLINE = [own for own in BLOCKS if is_offline(own)]


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
    (names,) = ran_blocks("docs/report.md")
    assert (tmp_path / "step.html").read_text(encoding="utf-8") == names["report"].html()


@pytest.mark.slow
def test_the_blocks_on_sessions_run_one_after_another(capsys: pytest.CaptureFixture[str]) -> None:
    printed = [capsys.readouterr().out for _ in ran_blocks("docs/sessions.md")]
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

"""The command line: ``marche-fx bench``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marche_fx.cli import app
from marche_fx.errors import ArgumentError


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["bench", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_size_is_benchmarked(tmp_path: Path) -> None:
    few = ("--batch", 1, "--cfg", 1, "--steps", 3, "--repeats", 1, "--no-head")
    output = run("--size", "fashion", "--variant", "eager", "--variant", "ours:0.1-eager", *few, "--out", tmp_path)
    assert "fashion, batch 1, no guidance, 3 decoding steps" in output
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == ["eager"] * 3 + ["ours-eager"] * 3
    assert (tmp_path / "bench.png").exists()


def test_a_users_model_is_benchmarked(tmp_path: Path) -> None:
    words = ("--variant", "eager", "--variant", "ours-eager", "--refresh", 0.25)
    output = run("--model", "tests.bench.models:text", *words, "--repeats", 1, "--out", tmp_path / "new" / "folder")
    assert "tests.bench.models:text" in output
    rows = json.loads((tmp_path / "new" / "folder" / "bench.json").read_text())["rows"]
    assert [row["refresh"] for row in rows] == [None, None, 0.25, 0.25]


def test_a_profile_has_a_table_and_a_trace(tmp_path: Path) -> None:
    output = run("--model", "tests.bench.models:text", "--profile", "--variant", "ours-eager", "--out", tmp_path)
    assert "choice of rows" in output
    assert (tmp_path / "trace-ours-eager-10.json").exists()
    assert json.loads((tmp_path / "profile.json").read_text())["rows"][0]["variant"] == "ours-eager 10%"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "tiny"), "no size 'tiny'; those that exist are fashion, emoji, base, large, huge"),
        (("--variant", "theirs"), "no variant 'theirs'"),
        (("--repeats", 0), "repeats must be at least 1"),
        (("--size", "huge", "--batch", 1_000_000), "needs .* are available"),
        (("--size", "base", "--model", "a:b"), "not both"),
        (("--profile", "--scaling"), "not both"),
        (("--profile", "--variant", "eager"), "the original has no parts to profile"),
        (("--refresh", 1.5), "fraction must lie in 0..1, got 1.5"),
        (("--model", "no_such_module:f"), "no module 'no_such_module'"),
        (("--device", "tpu"), "device must be cpu or cuda"),
        (("--steps", 1000), "1000 decoding steps are more than the 196 tokens"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        run(*arguments, "--out", tmp_path)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="cannot be written"):
        run("--out", tmp_path / "file")

"""The command line's manners."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from marche_fx import __version__
from marche_fx.__main__ import NEEDED
from marche_fx.cli import HEADING, run
from marche_fx.models import MAR


def test_an_error_that_a_user_can_mend_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["marche-fx", "demo", "--recipe", "quick"])
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 1
    told = "RecipeError: unknown recipe 'quick'; there are exact, balanced, fast, and the path of a JSON file\n"
    assert capsys.readouterr().err == told


REFUSED = (
    "demo --steps 0",
    "demo --temperature -1",
    "demo --out missing/demo.png",
    "demo --out demo.nothing",
    "explain tests.bench.models",
    "explain tests.bench.models:text --active 2",
    "report tests.bench.models:text --policy unheard",
    "report tests.bench.models:text --out missing/step.html",
    "report tests.bench.models:text --out step.nothing",
    "train --out new --data missing",
    "train-judge --out new --data missing",
    "train-text --out new --text missing",
    "train-text --out new --text missing --device nothing",
    "train-text --out new --text missing --dropout 2",
    "evaluate --out new --policy unheard",
    "evaluate --out new --policy selective:2",
    "evaluate --out new --images 1",
    "evaluate --out new --order nothing",
    "evaluate --out new --denoising nothing",
    "evaluate --out new --weights missing",
    "study-text --out new --loop nothing",
    "study-text --out new --variant nothing",
    "study-tokens --out new --variant nothing",
    "study-tokens --out new --batch 0",
    "tune --max-drift -1",
    "tune --out missing/policy.json",
    "bench --out new --size nothing",
    "bench --out new --variant unheard",
    "bench --out new --model nothing",
    "bench --out new --device nothing",
    "bench --out new --cfg 0",
    "sample --out new --count 0",
    "sample --out new --count 4 --labels missing",
    "sample --out new --count 4 --labels 10",
    "sample --out new --count 4 --format gif",
    "sample --out new --count 4 --model nothing",
    "sample --out new --count 4 --recipe quick",
    "sample --out new --count 4 --policy unheard",
    "sample --out new --count 4 --policy exact@20",
    "sample --out new --count 4 --recipe fast --policy selective:0.1",
    "sample --out new --count 4 --order nothing",
    "sample --out new --count 4 --steps 400",
    "sample --out new --count 4 --device nothing",
    "sample --out new --count 4 --model module:function --steps 4",
)
"""Calls that a command cannot do, each with one mistake."""


@pytest.mark.parametrize("call", REFUSED)
def test_a_refused_call_says_so_and_leaves_nothing_behind(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("a step was called")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MAR, "forward_mae_encoder", work)
    monkeypatch.setattr(sys, "argv", ["marche-fx", *call.split()])
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code in (1, 2)
    told = capsys.readouterr().err
    assert "Error" in told
    assert "a step was called" not in told
    assert not list(tmp_path.iterdir())


def output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["marche-fx", *arguments])
    with pytest.raises(SystemExit):
        run()
    return " ".join(capsys.readouterr().out.split())


def test_help_begins_with_what_the_program_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert HEADING in output(monkeypatch, capsys, "--help")
    assert HEADING in output(monkeypatch, capsys), "without a command too"


def test_the_version_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert output(monkeypatch, capsys, "--version") == f"marche_fx {__version__}"


@pytest.mark.parametrize("name", NEEDED)
def test_what_the_command_line_lacks_is_said_and_the_library_does_without(name: str) -> None:
    without = f"import sys; sys.modules[{name!r}] = None; import marche_fx.models, marche_fx.__main__ as program"
    told = subprocess.run([sys.executable, "-c", f"{without}; program.main()"], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (1, f"marche-fx needs {name}: pip install 'marche-fx[cli]'\n")


def test_the_citation_is_of_this_version() -> None:
    told = (Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {__version__}\n" in told


def test_the_module_is_the_program() -> None:
    told = subprocess.run([sys.executable, "-m", "marche_fx", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"marche_fx {__version__}\n"

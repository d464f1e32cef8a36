"""The command line's manners."""

from __future__ import annotations

import subprocess
import sys

import pytest

from marche_fx import __version__
from marche_fx.cli import HEADING, run


def test_an_error_that_a_user_can_mend_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["marche-fx", "demo", "--fraction", "2"])
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "ArgumentError: fraction must lie in 0..1, got 2.0\n"


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


def test_the_module_is_the_program() -> None:
    told = subprocess.run([sys.executable, "-m", "marche_fx", "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"marche_fx {__version__}\n"

"""The command line's manners."""

from __future__ import annotations

import sys

import pytest

from marche_fx.cli import run


def test_an_error_that_a_user_can_mend_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["marche-fx", "demo", "--fraction", "2"])
    with pytest.raises(SystemExit) as stopped:
        run()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == "ArgumentError: fraction must lie in 0..1, got 2.0\n"

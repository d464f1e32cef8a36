"""Commands that are killed, told to stop, or lose their folder at random moments go on to the same results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import kills
from tests.kills.attempts import STOPS
from tests.kills.commands import COMMANDS

ROOT = Path(__file__).parents[1]

SEED = 1


def stopped(command: str, out: Path, *stops: str) -> str:
    """What is told of a command that was stopped so, as `kills.attempts` has it, by a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = [sys.executable, "-W", "ignore", "-m", kills.__name__, command, str(out), ",".join(stops), str(SEED)]
    found = subprocess.run(run, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=600)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_stopped_goes_on_to_the_same_results(command: str, tmp_path: Path) -> None:
    told = stopped(command, tmp_path, "killed", "told", "removed", "killed")
    assert [told.count(f": {own} ") for own in STOPS] == [2, 1, 1], told


def test_what_goes_on_to_something_else_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"0: b differ from an uninterrupted run's"):
        stopped("forgetful", tmp_path, "killed")

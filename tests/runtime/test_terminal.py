"""What takes long is said on a terminal, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
import threading

import pytest

from marche_fx.runtime.terminal import WIPE, saying

PROGRAM = """
import torch
from torch import nn
import marche_fx

model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval().requires_grad_(False)
optimized = marche_fx.transform(model, compile=COMPILE)
with marche_fx.decoding(optimized):
    for step in range(5):
        x = torch.randn(1, 32, 8) if step == 0 else torch.cat([x[:, :1] + 1, x[:, 1:]], 1)
        optimized(x)[:, :1].sum()
"""


def on_a_terminal(compile: bool) -> str:
    """What the program writes to a terminal."""
    ours, theirs = pty.openpty()
    written: list[bytes] = []

    def read() -> None:
        # The end of a terminal is an error, once nobody else has it open.
        try:
            while part := os.read(ours, 4096):
                written.append(part)
        except OSError:
            return

    reader = threading.Thread(target=read)
    reader.start()
    program = PROGRAM.replace("COMPILE", str(compile))
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program], stdout=theirs, stderr=theirs, check=False
        )
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    told = b"".join(written).decode()
    assert done.returncode == 0, told
    return told


def steps_told(told: str) -> list[str]:
    return [own.removeprefix("marche_fx: ").removesuffix(" ...") for own in told.split(WIPE) if own]


@pytest.mark.slow
def test_a_terminal_is_told_what_takes_long_and_left_clean() -> None:
    told = on_a_terminal(compile=True)
    assert steps_told(told) == [
        "capturing TransformerEncoderLayer.forward",
        "checking TransformerEncoderLayer.forward against the original",
        "compiling TransformerEncoderLayer.forward for all tokens",
        "compiling TransformerEncoderLayer.forward for some tokens",
    ]
    assert told.endswith(WIPE)


@pytest.mark.slow
def test_what_is_not_compiled_is_not_said_to_be() -> None:
    assert [own.split()[0] for own in steps_told(on_a_terminal(compile=False))] == ["capturing", "checking"]


@pytest.mark.slow
def test_nothing_is_said_where_there_is_no_terminal() -> None:
    program = PROGRAM.replace("COMPILE", "False")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_is_wiped_where_the_work_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with pytest.raises(ZeroDivisionError), saying("dividing"):
        1 / 0  # noqa: B018
    assert stream.getvalue() == f"{WIPE}marche_fx: dividing ...{WIPE}"


def test_a_program_without_standard_error_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with saying("nothing"):
        pass

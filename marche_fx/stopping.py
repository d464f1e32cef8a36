"""How a command ends that fails or is told to stop: a line that says so, and the exit code that shells expect."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from .errors import MarcheError
from .saving.refused import refusal

SIGNALS = {signal.SIGINT: "by Ctrl-C", signal.SIGTERM: "by SIGTERM"}
"""What a command is told to stop by."""

AGAIN = 0.05
"""Seconds after which a stop that Python could not raise is raised again."""

KILLED = 128
"""With the number of a signal the exit code of a program that it ended."""


class StoppedError(BaseException):
    """A signal; no `Exception`, as `KeyboardInterrupt` is none, so that what cleans up runs and nothing goes on."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, the signals raise `StoppedError`: files that are being written are removed, and older ones stay.

    From a destructor, or a callback of a weak reference, Python lets nothing out: then it is raised a little later.
    """
    lost: list[threading.Timer] = []

    def stop(number: int, frame: FrameType | None) -> None:
        raise StoppedError(number)

    def ignored(told: sys.UnraisableHookArgs) -> None:
        if not isinstance(told.exc_value, StoppedError):
            hook(told)
            return
        lost.append(threading.Timer(AGAIN, os.kill, (os.getpid(), told.exc_value.number)))
        lost[-1].start()

    hook, sys.unraisablehook = sys.unraisablehook, ignored
    before = {own: signal.signal(own, stop) for own in SIGNALS}
    try:
        yield
    finally:
        for timer in lost:
            timer.cancel()
        sys.unraisablehook = hook
        for own, handler in before.items():
            signal.signal(own, handler)


def run_command(command: Callable[[], object]) -> None:
    """Run a command; what a user can mend is a line and no traceback, and so is the end by a signal.

    Raises:
        SystemExit: with 1 after an error, with 130 after Ctrl-C and 143 after SIGTERM.
    """
    try:
        with stoppable():
            command()
    except StoppedError as stopped:
        how = SIGNALS[signal.Signals(stopped.number)]
        leave(
            f"stopped {how}: no file is half-written, and the same command goes on where it can",
            KILLED + stopped.number,
        )
    except MarcheError as error:
        leave(f"{type(error).__name__}: {error}", 1)
    except OSError as error:
        if error.filename is None:
            raise
        leave(f"OSError: {refusal(Path(error.filename), error)}", 1)


def leave(line: str, code: int) -> None:
    print(line, file=sys.stderr)
    raise SystemExit(code)

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
"""Seconds after which a stop that is not on its way out is raised again."""

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

    It may be lost: C code makes another error of it, what catches everything goes on, and from a destructor, or a
    callback of a weak reference, Python lets nothing out. So it is raised until it gets out; an error that comes out in
    its place is told as the stop. What cleans up is not broken off by another signal.

    Raises:
        StoppedError: a signal came, and what is inside did not end by itself.
    """
    came: list[int] = []
    left = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        if left.is_set() or is_leaving():
            return
        if not came:
            came.append(number)
            asking.start()
        raise StoppedError(number)

    def ask_again() -> None:
        while not left.wait(AGAIN):
            os.kill(os.getpid(), came[0])

    def ignored(told: sys.UnraisableHookArgs) -> None:
        if not isinstance(told.exc_value, StoppedError):
            hook(told)

    asking = threading.Thread(target=ask_again, daemon=True)
    hook, sys.unraisablehook = sys.unraisablehook, ignored
    before = {own: signal.signal(own, stop) for own in SIGNALS}
    try:
        yield
    except Exception as error:
        if came:
            raise StoppedError(came[0]) from error
        raise
    finally:
        left.set()
        # What it sent comes before the handlers are others.
        if came:
            asking.join()
        sys.unraisablehook = hook
        for own, handler in before.items():
            signal.signal(own, handler)


def is_leaving() -> bool:
    """Whether a stop is being dealt with where this is called from, by what cleans up behind it."""
    handled = sys.exc_info()[1]
    while handled is not None and not isinstance(handled, StoppedError):
        handled = handled.__context__
    return handled is not None


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

"""Processes that run a command, are stopped at random moments, and go on.

They are forked, so that none imports everything again. A command is killed, told to stop (SIGTERM), or its folder is
removed under it; then the same is run again, with a clock that was set back, until it ends by itself. What it wrote by
then has to be what one wrote that nobody disturbed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from marche_fx.stopping import KILLED, run_command

DAY = 86_400

SOON = 20.0
"""Seconds in which a command ends that is told to stop."""

UNEXPECTED = 70
"""Exit code of a command that raised what no user can mend."""


@dataclass(frozen=True)
class Command:
    """Something that writes a folder.

    Attributes:
        run: with the folder, which goes on where it was stopped. written: what it wrote there, without times, by name.
        prepare: what all processes have in common, made before they are forked.
    """

    run: Callable[[Path], object]
    written: Callable[[Path], dict[str, Any]]
    prepare: Callable[[], object] = lambda: None


class NotResumedError(AssertionError):
    """What was stopped did not end as it should, or is not what nobody disturbed."""


def remove(child: int, out: Path) -> None:
    """The folder, also where what is being written makes it anew."""
    while out.exists():
        shutil.rmtree(out, ignore_errors=True)


STOPS: dict[str, Callable[[int, Path], object]] = {
    "killed": lambda child, out: os.kill(child, signal.SIGKILL),
    "told": lambda child, out: os.kill(child, signal.SIGTERM),
    "removed": remove,
}
"""What is done to a process, by its number, and its folder."""


def stop_and_go_on(command: Command, out: Path, stops: Sequence[str], draws: random.Random) -> None:
    """Stop runs at random moments, as words of `STOPS` say; each goes on until it ends by itself, then another begins.

    ``out/whole`` is of a run that nobody disturbs, ``out/0``, ``out/1`` of those that are stopped.

    Raises:
        NotResumedError: one of them ended otherwise than it should, or what it wrote is something else.
    """
    out.mkdir(parents=True, exist_ok=True)
    command.prepare()
    whole = Attempt(command, out / "whole", 0)
    whole.check()
    expected, left = command.written(whole.out), [*stops]
    # So early that most are stopped; what is done late in a run is done by those that go on.
    latest = whole.seconds / 2
    run = attempts = 0
    while True:
        attempts += 1
        stop = left[0] if left else None
        own = Attempt(command, out / str(run), attempts, stop, draws.uniform(0, latest))
        own.check()
        if own.is_stopped:
            left.pop(0)
            continue
        found = command.written(own.out)
        differing = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
        if differing:
            raise NotResumedError(f"{own.out}: {', '.join(differing)} differ from an uninterrupted run's")
        if own.half_written():
            raise NotResumedError(f"left behind: {', '.join(own.half_written())}")
        if not left:
            return
        run += 1


class Attempt:
    """One process that runs a command; after so many seconds it is stopped, if it has not ended by then.

    Args:
        number: of the attempts before it; so many days its clock is set back. stop: a word of `STOPS`.
    """

    def __init__(self, command: Command, out: Path, number: int, stop: str | None = None, after: float = 0.0) -> None:
        self.out, self.stop, self.told = out, stop, out.with_name(f"{out.name}.told")
        self.was_stopped, self.after = False, after
        self.before = self.half_written()
        ready, begun = os.pipe()
        self.child = os.fork()
        if not self.child:
            self.work(command, number, begun)
        os.close(begun)
        os.read(ready, 1)
        os.close(ready)
        began = time.monotonic()
        timer = threading.Timer(after, self.interrupt)
        if stop is not None:
            timer.start()
        # Not taken note of before nothing is sent to its number any more.
        os.waitid(os.P_PID, self.child, os.WEXITED | os.WNOWAIT)
        timer.cancel()
        if stop is not None:
            timer.join()
        self.seconds = time.monotonic() - began
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        self.text = self.told.read_text()
        self.told.unlink()
        print(f"{out.name}: {stop if self.is_stopped else 'ended'} after {self.seconds:.2f} s", flush=True)

    def interrupt(self) -> None:
        assert self.stop is not None
        self.was_stopped = True
        STOPS[self.stop](self.child, self.out)

    def work(self, command: Command, number: int, begun: int) -> NoReturn:
        """What the child does; it writes a byte to ``begun`` once it can be told to stop."""
        code = UNEXPECTED
        try:
            told = os.open(self.told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(told, 1)
            os.dup2(told, 2)
            now = time.time
            time.time = lambda: now() - number * DAY
            # Told to stop behind its end, it has ended.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

            def run() -> None:
                os.write(begun, b"1")
                command.run(self.out)

            run_command(run)
            code = 0
        except SystemExit as ended:
            code = int(str(ended.code))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    @property
    def is_stopped(self) -> bool:
        """Whether it was, before its end; without its folder, behind which nothing was written, it is as if it was."""
        return self.code != 0 or (self.was_stopped and self.stop == "removed" and not self.out.exists())

    def check(self) -> None:
        """Whether it ended by itself, or as one does that is stopped so."""
        ends = {"killed": -signal.SIGKILL, "told": KILLED + signal.SIGTERM, "removed": 1}
        if self.code != 0 and not (self.was_stopped and self.code == ends[str(self.stop)]):
            raise NotResumedError(f"{self.out}, {self.stop}: ended with {self.code}: {self.text}")
        last = (self.text.strip().splitlines() or [""])[-1]
        if self.code != 0 and self.stop == "removed" and not ("Error: " in last and str(self.out) in last):
            raise NotResumedError(f"{self.out}: does not name the folder that was removed: {self.text}")
        if self.code != 0 and self.stop == "told" and not last.startswith("stopped by SIGTERM: "):
            raise NotResumedError(f"{self.out}: does not say that it was told to stop: {self.text}")
        if self.was_stopped and self.stop == "told":
            self.leaves_nothing_half_written()
            if self.seconds > self.after + SOON:
                raise NotResumedError(f"{self.out}: was told to stop, and went on: {self.text}")

    def half_written(self) -> set[str]:
        return {str(own) for own in self.out.rglob("*.partial")}

    def leaves_nothing_half_written(self) -> None:
        """But what was there before."""
        names = self.half_written() - self.before
        if names:
            raise NotResumedError(f"{self.stop}: left behind {', '.join(names)}")

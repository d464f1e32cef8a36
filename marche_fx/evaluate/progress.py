"""Progress of hours: a bar on a terminal, a line for each thing done elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Steps:
    """What is counted; see `progress`."""

    def __init__(self, bar: Progress, what: str, total: int, completed: int) -> None:
        self.bar = bar
        self.what = what
        self.total = total
        self.completed = completed
        self.task = bar.add_task(what, total=total, completed=completed)

    def begin(self, name: str) -> None:
        self.bar.update(self.task, description=f"{self.what} {name}")

    def end(self, name: str, seconds: float) -> None:
        self.completed += 1
        self.bar.update(self.task, completed=self.completed)
        if self.bar.disable:
            print(f"{self.what} {self.completed} of {self.total}: {name}, {seconds:.1f} s", flush=True)


@contextmanager
def progress(console: Console, what: str, total: int, completed: int) -> Iterator[Steps]:
    """A bar with the time that is left, of ``total`` things of which ``completed`` were done before."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bar:
        yield Steps(bar, what, total, completed)

"""Images a second and the time that is left: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

EVERY = 10.0
"""Seconds between two lines."""


class Speed:
    """How fast images are made, by all processes together.

    Args:
        total: images of the run.
    """

    def __init__(self, bar: Progress, total: int) -> None:
        self.bar = bar
        self.total = total
        self.task = bar.add_task("images", total=total, told="")
        self.began = self.told_at = time.monotonic()

    def tell(self, made: int, found: int) -> None:
        """So many were made in this run, and so many ``found`` made."""
        now, done = time.monotonic(), made + found
        told = pace(made, now - self.began, self.total - done)
        self.bar.update(self.task, completed=done, told=told)
        if self.bar.disable and (done == self.total or now - self.told_at > EVERY):
            self.told_at = now
            self.bar.console.print(f"{done} of {self.total} images, {told}", highlight=False)


def pace(made: int, seconds: float, left: int) -> str:
    """``12.3 images/s, 0:41:07 left``."""
    if not made or seconds <= 0:
        return "none made yet"
    rate = made / seconds
    return f"{rate:.1f} images/s, {timedelta(seconds=round(left / rate))} left"


@contextmanager
def speed(console: Console, total: int) -> Iterator[Speed]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"))
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield Speed(bar, total)

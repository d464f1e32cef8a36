"""What the passes found, and how long each took: the trail that they leave as they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Found = TypeVar("Found")


@dataclass(frozen=True)
class PassRun:
    """One pass that ran.

    Attributes:
        found: what it found or made, in words. seconds: how long it took.
    """

    name: str
    found: str
    seconds: float


class Trail:
    """Runs passes and keeps note of them."""

    def __init__(self) -> None:
        self.runs: list[PassRun] = []

    def run(self, name: str, result: Callable[[], Found], found: Callable[[Found], str]) -> Found:
        """Run the pass ``name``, whose result is ``result()``; ``found`` puts it in words."""
        start = time.perf_counter()
        made = result()
        self.runs.append(PassRun(name, found(made), time.perf_counter() - start))
        return made


def counted(number: int, word: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"

"""What the passes found, and how long each took: the trail that they leave as they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from torch._logging import trace_structured

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
    """Runs passes and keeps note of them, also in PyTorch's own trail where ``TORCH_TRACE`` asks for one."""

    def __init__(self) -> None:
        self.runs: list[PassRun] = []

    def run(
        self,
        name: str,
        result: Callable[[], Found],
        found: Callable[[Found], str],
        shown: Callable[[Found], str] | None = None,
    ) -> Found:
        """Run the pass ``name``, whose result is ``result()``; ``found`` puts it in words, ``shown`` at length."""
        start = time.perf_counter()
        made = result()
        own = PassRun(name, found(made), time.perf_counter() - start)
        self.runs.append(own)
        trace(own, (lambda: "") if shown is None else (lambda: shown(made)))
        return made


def trace(own: PassRun, shown: Callable[[], str]) -> None:
    """Leave an artifact that ``tlparse`` shows; nothing is put into words where nobody asked for it."""
    trace_structured(
        "artifact",
        metadata_fn=lambda: {"name": f"marche_fx_{own.name}", "encoding": "string"},
        payload_fn=lambda: f"{own.found}, {own.seconds:.3f} s\n\n{shown()}",
        expect_trace_id=False,
    )


def counted(number: int, word: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{number} {word}" if number == 1 else f"{number} {word}s"

"""Time on the processor and on CUDA."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch


class Clock(Protocol):
    """Takes marks while work is under way; their distance is known once the work has settled."""

    def mark(self) -> Any: ...

    def settle(self) -> None:
        """Wait until everything that was begun is done."""

    def seconds(self, begin: Any, end: Any) -> float: ...


class ProcessorClock:
    """Of work that is done when its call returns."""

    def mark(self) -> float:
        return time.perf_counter()

    def settle(self) -> None:
        pass

    def seconds(self, begin: float, end: float) -> float:
        return end - begin


class Event(Protocol):
    """What `CudaClock` needs of `torch.cuda.Event`."""

    def record(self) -> None: ...

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds to ``end``."""


class CudaClock:
    """Of work that a stream does after its call has returned: events in the stream, read after it was waited for.

    Where the device waits for the host, as in steps of few rows, that is part of the time.
    """

    def __init__(self, new_event: Callable[[], Event], synchronize: Callable[[], None]) -> None:
        self.new_event = new_event
        self.synchronize = synchronize

    def mark(self) -> Event:
        event = self.new_event()
        event.record()
        return event

    def settle(self) -> None:
        self.synchronize()

    def seconds(self, begin: Event, end: Event) -> float:
        return begin.elapsed_time(end) / 1000


def clock_for(device: torch.device) -> Clock:
    """The clock of a device's work."""
    if device.type != "cuda":
        return ProcessorClock()

    def new_event() -> Event:
        event: Event = torch.cuda.Event(enable_timing=True)
        return event

    return CudaClock(new_event, lambda: torch.cuda.synchronize(device))

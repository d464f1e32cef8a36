"""Time on the processor and on CUDA."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import torch

from ..errors import ArgumentError


class Clock(Protocol):
    """Takes marks while work is under way; their distance is known once the work has settled."""

    def mark(self) -> Any: ...

    def settle(self) -> None:
        """Wait until everything that was begun is done."""

    def seconds(self, begin: Any, end: Any) -> float: ...


class ProcessorClock:
    """Of work that is done when its call returns.

    Args:
        now: seconds of the wall, or of the work of this process.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self.now = now

    def mark(self) -> float:
        return self.now()

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


def timings(run: Callable[[], object], clock: Clock, repeats: int) -> list[float]:
    """Seconds of each ``run()``, after one that is not timed."""
    run()
    taken = []
    for _ in range(repeats):
        clock.settle()
        begin = clock.mark()
        run()
        end = clock.mark()
        clock.settle()
        taken.append(clock.seconds(begin, end))
    return taken


def clock_for(device: torch.device, *, cpu_time: bool = False) -> Clock:
    """The clock of a device's work.

    Args:
        cpu_time: count what this process works, not the wall.

    Raises:
        ArgumentError: ``cpu_time`` on another device than the processor, or of more threads than one.
    """
    if cpu_time and (device.type != "cpu" or torch.get_num_threads() > 1):
        raise ArgumentError(
            f"processor time tells how long something takes on the processor with one thread, not on {device} with "
            f"{torch.get_num_threads()}, of which idle ones work too while they wait; set OMP_NUM_THREADS=1"
        )
    if device.type != "cuda":
        return ProcessorClock(time.process_time if cpu_time else time.perf_counter)

    def new_event() -> Event:
        event: Event = torch.cuda.Event(enable_timing=True)
        return event

    return CudaClock(new_event, lambda: torch.cuda.synchronize(device))

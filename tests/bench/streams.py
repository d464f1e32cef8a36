"""A device that does what it is given later, as a CUDA stream does."""

from __future__ import annotations

from typing import Any


class Stream:
    """Launches take no time on the host; they are done, in their order, when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.queue: list[float | Event] = []

    def launch(self, milliseconds: float) -> None:
        self.queue.append(milliseconds)

    def event(self) -> Event:
        return Event(self)

    def synchronize(self) -> None:
        for own in self.queue:
            if isinstance(own, Event):
                own.time = self.now
            else:
                self.now += own
        self.queue.clear()


class Event:
    """Has a time once the stream has come to where it was recorded."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.time: float | None = None

    def record(self) -> None:
        self.stream.queue.append(self)

    def elapsed_time(self, end: Any) -> float:
        if self.time is None or end.time is None:
            raise RuntimeError("an event that has not been reached has no time")
        return float(end.time - self.time)

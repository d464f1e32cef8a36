"""The graphs of a transformed model: what records them, how many there may be, and in how much memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakSet, ref

import torch

from ..users_code import warn_once
from .buffers import Buffers, KnownStep
from .recorded import Failure, told
from .recorder import CudaRecorder, Recorder, RecordingError

IDLE = 4
"""Buffers that are kept for sessions to come, when all sessions have ended."""

MOST_KINDS = 64
"""Kinds of steps that are remembered; for one more the one goes that was not used for longest."""


class Graphs:
    """What all steps of a transformed model share of their graphs.

    Args:
        make: what records on a device.

    Attributes:
        lock: held while a graph is recorded or replayed.
        buffers: of all sessions, and the idle ones, of those that ended last.
        dropped: kinds of steps that went for others, or for weights that are elsewhere by now.
        stopped: why nothing is recorded any more; empty while it is.
        told: what the user was warned of.
    """

    def __init__(self, make: Callable[[torch.device], Recorder] = CudaRecorder) -> None:
        self.make = make
        self.recorders: dict[torch.device, Recorder | None] = {}
        self.lock = threading.RLock()
        self.buffers: WeakSet[Buffers] = WeakSet()
        self.idle: list[tuple[ref[Any], Buffers]] = []
        self.dropped = 0
        self.stopped = ""
        self.told: list[str] = []
        self.warned: set[str] = set()
        self.steps = 0

    def recorder(self, device: torch.device) -> Recorder | None:
        """What records on a device; None, after a warning, where nothing does."""
        with self.lock:
            if device not in self.recorders:
                try:
                    self.recorders[device] = self.make(device)
                except (RecordingError, RuntimeError) as error:
                    self.recorders[device] = None
                    why = str(error) if isinstance(error, RecordingError) else told(error)
                    self.warn(f"cuda_graphs=True has no effect, and steps run without: {why}")
            return self.recorders[device]

    def take(self, owner: object, device: torch.device) -> Buffers | None:
        """Buffers that an earlier session left, of the same step."""
        with self.lock:
            found = next((own for own in self.idle if own[0]() is owner and own[1].samples.device == device), None)
            if found is None:
                return None
            self.idle.remove(found)
            return found[1]

    def leave(self, owner: object, buffers: Buffers) -> None:
        """A session of a step has ended."""
        with self.lock:
            # Those of a step that nobody has any longer go with it.
            alive = [own for own in self.idle if own[0]() is not None]
            self.idle = [*alive, (ref(owner), buffers)][-IDLE:]

    def next_step(self) -> int:
        """The number of a step among all."""
        self.steps += 1
        return self.steps

    def stop(self, failure: Failure) -> str:
        """Why a step could not be recorded; where it is not for its operators, no other one is recorded either."""
        if failure.kind == "operators":
            return f"too many of its operators cannot be recorded, the last since {failure.text}"
        if failure.kind == "memory":
            self.stopped = "there is no memory for another graph"
            self.warn(
                "there is no memory for another CUDA graph, so steps of other kinds run without. Smaller batches, or "
                f"fewer kinds of steps, need less: {failure.text}"
            )
        else:
            self.stopped = "graphs cannot be recorded here"
            self.warn(f"CUDA graphs cannot be recorded here, so steps run without: {failure.text}")
        return self.stopped

    @property
    def size(self) -> int:
        """Bytes that all graphs keep."""
        return sum(own.size for buffers in self.buffers for own in buffers.steps.values())

    def make_room(self, own: KnownStep, limit: int) -> None:
        """Let other kinds of steps go, those first that were not used for longest, until the rest is few and small."""
        with self.lock:
            known = [(buffers, kind) for buffers in self.buffers for kind in buffers.steps]
            known.sort(key=lambda each: each[0].steps[each[1]].used)
            surplus = len(known) - MOST_KINDS
            for buffers, kind in known:
                if surplus <= 0 and self.size <= limit:
                    return
                if buffers.steps[kind] is not own:
                    self.drop(buffers, kind)
                    surplus -= 1
            if own.size > limit:
                self.stopped = "one graph would take more memory than all may"
                self.warn(
                    f"a CUDA graph of a step takes {own.size:,} bytes, and all may take {limit:,}, so steps run "
                    "without. Smaller batches need less"
                )
                own.recorded = None

    def drop(self, buffers: Buffers, kind: Hashable) -> None:
        """Forget a kind of step with its graphs."""
        with self.lock:
            del buffers.steps[kind]
            self.dropped += 1

    def warn(self, message: str) -> None:
        self.told.append(message)
        warn_once(self.warned, message)

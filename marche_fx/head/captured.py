"""What is known of calls of one kind: the denoiser captured for them, and at which times a denoising calls it."""

from __future__ import annotations

import threading
import weakref

from ..passes.recent import Recent
from .denoising import Denoising
from .program import HeadProgram
from .schedule import Schedule

MOST_ANNOUNCED = 256
"""Announcements of a loop: as many as the steps of a decoding of which each has a schedule of its own."""


class Captured:
    """A captured denoiser, for calls of one kind.

    Attributes:
        schedule: the times of the denoising before; None while none is known. announced: those that loops announced.
    """

    def __init__(self, program: HeadProgram) -> None:
        self.program = program
        self.schedule: Schedule | None = None
        self.announced: Recent[tuple[float, ...], Schedule] = Recent(MOST_ANNOUNCED)
        self.denoisings: list[weakref.ref[Denoising]] = []
        """Those that threads still hold."""
        self.lock = threading.Lock()

    def begin(self, denoising: Denoising) -> None:
        with self.lock:
            # Another list: a thread may be looking through this one.
            self.denoisings = [*(own for own in self.denoisings if own() is not None), weakref.ref(denoising)]

    @property
    def is_in_use(self) -> bool:
        """Whether a denoising may go on with it."""
        found = (own() for own in self.denoisings)
        return any(own is not None and not own.has_ended for own in found)

"""Which session is open where a step is called: that of the innermost frame, or of the context."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from contextvars import ContextVar
from types import FrameType
from typing import Any

from ..errors import ArgumentError
from .session import Session

OPEN: ContextVar[tuple[OpenSession, ...]] = ContextVar("marche_fx_sessions", default=())
"""Sessions opened in this context, the innermost last; never mutated, only replaced."""

IN_GENERATORS: dict[int, tuple[OpenSession, ...]] = {}
"""Sessions opened in the body of a generator, by its frame. Between two of its steps other code runs in the same
context, which must not find them; and each step may run in another thread."""

GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR

Owner = Any
"""What a session belongs to: one transformed model."""


class OpenSession:
    """A session of one transformed model as a context: inside, its steps keep their caches.

    Args:
        keeps: keep the caches when it is left, to enter it again; `close` frees them.
    """

    def __init__(self, owner: Owner, *, is_loop: bool = False, keeps: bool = False) -> None:
        self.owner = owner
        self.keeps = keeps
        self.is_loop = is_loop
        self.session: Session | None = None
        self.depth = 0
        self.thread: int | None = None
        self.frame: int | None = None
        self.in_generator = False

    def is_of(self, owner: Owner) -> bool:
        """Whether it is a session of ``owner``, or of the model that ``owner`` is a part of."""
        return self.owner is owner or getattr(owner, "whole", None) is self.owner

    def __enter__(self) -> Session:
        here = threading.get_ident()
        if self.depth and self.thread != here:
            raise ArgumentError(
                "a session is entered by two threads at once, which would mix their caches. Open one for each, inside "
                "of the thread"
            )
        if self.session is None:
            self.session = Session(is_loop=self.is_loop)
        self.thread, self.depth = here, self.depth + 1
        if self.depth == 1:
            frame = opening_frame()
            self.frame, self.in_generator = id(frame), is_generator(frame)
            if self.in_generator:
                IN_GENERATORS[self.frame] = (*IN_GENERATORS.get(self.frame, ()), self)
            else:
                # What was interrupted while it was left is open no more.
                OPEN.set((*(own for own in OPEN.get() if own.depth), self))
            try:
                self.entered(self.session)
            except BaseException:
                # Not even an interrupt leaves a session open of which nobody knows; it goes on from here.
                self.__exit__(*sys.exc_info())
                raise
        return self.session

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.depth -= 1
        if self.depth:
            return
        try:
            self.leave()
        finally:
            if not self.keeps:
                self.end(failed=kind is not None)

    def leave(self) -> None:
        """Be found no more, whatever else was opened since, and in whichever context this ends."""
        self.left()
        if self.in_generator:
            assert self.frame is not None
            rest = tuple(own for own in IN_GENERATORS.get(self.frame, ()) if own is not self)
            if rest:
                IN_GENERATORS[self.frame] = rest
            else:
                IN_GENERATORS.pop(self.frame, None)
        else:
            OPEN.set(tuple(own for own in OPEN.get() if own is not self))

    def end(self, *, failed: bool = False) -> None:
        session, self.session = self.session, None
        if session is None:
            return
        try:
            if not failed:
                session.close()
                self.owner.last_session = session
        finally:
            session.discard()
            self.ended(session, failed=failed)

    def entered(self, session: Session) -> None:
        """For those who watch over a session, as are the next two."""

    def left(self) -> None:
        """It is entered no more, and may be again."""

    def ended(self, session: Session, *, failed: bool) -> None:
        """Its caches are freed."""

    def close(self) -> None:
        """Free the caches. What was computed stays in `report`; entered again, it is a new session."""
        if self.depth:
            raise ArgumentError("a session cannot be closed while it is entered; leave its `with` block first")
        self.end()


def opening_frame() -> FrameType:
    """The frame of the `with` statement that opens a session: behind those of context managers made of generators."""
    frame = caller(sys._getframe(1))
    while is_generator(frame) and frame.f_back is not None and is_contextlib(frame.f_back):
        frame = caller(frame)
    return frame


def caller(frame: FrameType) -> FrameType:
    """The nearest caller outside of this file and of `contextlib`."""
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename != __file__ and not is_contextlib(frame):
            break
    return frame


def is_contextlib(frame: FrameType) -> bool:
    return frame.f_code.co_filename == contextlib.__file__


def is_generator(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & GENERATORS)


def current_session(owner: Owner) -> Session | None:
    """The session of ``owner`` that was opened by the innermost of the calls on the stack, or else in this context."""
    here = [own for own in OPEN.get() if own.is_of(owner) and own.session is not None and own.depth]
    if IN_GENERATORS:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            bound = [own for own in IN_GENERATORS.get(id(frame), ()) if own.is_of(owner)]
            bound += [own for own in here if own.frame == id(frame)]
            if bound:
                return bound[-1].session
            frame = frame.f_back
    return here[-1].session if here else None

"""One generation: the streams of its calls, and what was computed in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakMethod

from torch import Tensor

from ..errors import ArgumentError
from .call_inputs import CallInputs
from .method import StepMethod
from .program import Program
from .records import SessionLog, StepRecord
from .state import StepState
from .stream import MOST_TRIED, Stream, find_stream
from .turns import MOST_STREAMS, USUAL_STREAMS, Turns

STREAM: ContextVar[str | None] = ContextVar("marche_fx_stream", default=None)
"""The name of the stream that calls belong to, where the user says it."""


@contextmanager
def stream(name: str) -> Iterator[None]:
    """Calls of steps inside belong to the stream of this name, in any session.

    A session keeps caches, ages and schedules apart for each condition under which a step is called, such as the
    conditional and the unconditional call of guidance, which it tells apart by their inputs. Where it cannot, say it::

        with marche_fx.stream("unconditional"):
            logits = optimized(ids, no_text)

    Raises:
        ArgumentError: the name is no text.
    """
    if not isinstance(name, str) or not name:
        raise ArgumentError(f"a stream is named by a text that is not empty, got {name!r}")
    token = STREAM.set(name)
    try:
        yield
    finally:
        STREAM.reset(token)


class Session:
    """The caches and the refresh history of one generation.

    Args:
        is_loop: opened by a call of a loop method, which then shares it with loop methods that it calls.
    """

    def __init__(self, *, is_loop: bool = False) -> None:
        self.is_loop = is_loop
        self.decoding_steps: int | None = None
        """How many the loop method was asked for, where its arguments say so."""
        self.head_calls = 0
        """Of a head whose denoising depends on how far the decoding is."""
        self.streams: list[Stream] = []
        """The one that was called last stands last."""
        self.opened = 0
        """Streams so far."""
        self.turns: defaultdict[Program, Turns] = defaultdict(Turns)
        self.closed: set[str] = set()
        """Names of streams that others took the place of."""
        self.on_first_call: Callable[[], None] | None = None
        """Called once, when a step is called."""
        self.on_refusal: Callable[[], None] | None = None
        """Called when a child that nobody asked to transform was called, and cannot be."""
        self.conditions_move = False
        """Whether a condition was seen to move from step to step."""
        self.log = SessionLog(WeakMethod(self.discard))
        self.samples: int | None = None
        """Of the last call, or of those that go on with the next."""
        self.kept: Tensor | None = None
        """``[B']``, the samples of the last call that go on with the next; None where all do."""

    def begin(self) -> None:
        """A step of the session is called."""
        if self.on_first_call is not None:
            self.on_first_call()
            self.on_first_call = None

    @property
    def records(self) -> list[StepRecord]:
        return self.log.records

    @property
    def states(self) -> list[StepState]:
        """Of all programs in all streams."""
        return [state for own in self.streams for state in own.states.values()]

    @property
    def room(self) -> int:
        """How many streams are kept: others may be those of generations that have ended, and never called again."""
        are_called_again = any(own.are_taken for own in self.turns.values()) or any(own.name for own in self.streams)
        return MOST_STREAMS if are_called_again else USUAL_STREAMS

    def stream_of(self, method: StepMethod, program: Program, call: CallInputs) -> Stream:
        """The stream that a call belongs to, opened if it is the first of one.

        Children that a loop calls are networks of their own: what is known of one says nothing of another.
        """
        self.go_on_with_kept(program)
        name, streams = STREAM.get(), [own for own in self.streams if own.settings is method.settings]
        if name is None:
            turns = self.turns[program]
            found = find_stream(streams, method.order, call, turns)
            if found is None and not turns.are_taken:
                found = self.moved(call)
            if turns.has_lost and len(self.streams) == MOST_STREAMS:
                method.warn_once(too_many_streams(method), topic="streams")
        else:
            found = next((own for own in streams if own.name == name), None)
            if found is None and name in self.closed:
                method.warn_once(too_many_streams(method, repr(name)), topic="streams")
        if found is None:
            found = Stream(self.opened, method.settings, name)
            self.opened += 1
        else:
            self.streams.remove(found)
        self.streams.append(found)
        while len(self.streams) > self.room:
            gone = self.streams.pop(0)
            gone.close()
            if gone.name is not None:
                self.closed.add(gone.name)
        if name is None:
            self.turns[program].note(call, found.number)
        found.enter(method.order, call)
        return found

    def keep(self, samples: Tensor) -> None:
        """The next calls are of these ``samples [B']`` of the last."""
        counts = {state.program.samples for state in self.states}
        if len(counts) > 1:
            raise ArgumentError(
                "keep_samples is for loops that call their steps with all samples at once, and this one calls them "
                f"with {' and '.join(map(str, sorted(counts)))} samples"
            )
        # Until the next call, of which arguments may be results of the last, nothing else is known of it.
        self.kept = samples if self.kept is None else self.kept[samples]
        self.samples = len(samples)

    def go_on_with_kept(self, program: Program) -> None:
        """A call of ``program`` begins: what is cached is that of its samples."""
        kept, self.kept, self.samples = self.kept, None, program.samples
        if kept is None:
            return
        if len(kept) != program.samples:
            raise ArgumentError(
                f"keep_samples kept {len(kept)} samples, and the next call has {program.samples}: its batch must be "
                "the samples that were kept"
            )
        self.turns.clear()
        for own in self.streams:
            own.keep(kept)

    def moved(self, call: CallInputs) -> Stream | None:
        """The latest stream, where no stream is ever called again, so that calls are no branches; None otherwise."""
        tried = [own for own in self.streams if own.name is None and own.count == 1 and call.program in own.calls]
        if len(tried) < MOST_TRIED and not self.conditions_move:
            return None
        self.conditions_move = True
        for own in tried[:-1]:
            self.streams.remove(own)
            own.close()
        return next((own for own in reversed(self.streams) if call.program in own.calls), None)

    def close(self) -> None:
        """Free the caches; what was recorded stays, and so do results that somebody holds."""
        for own in self.streams:
            own.close()
        self.discard()

    def discard(self) -> None:
        """Free the caches."""
        for own in self.streams:
            own.discard()
        self.streams.clear()
        self.turns.clear()


def too_many_streams(method: StepMethod, which: str = "each") -> str:
    return (
        f"calls of {method} belong to more than {MOST_STREAMS} streams in turn, of which a session keeps no more: "
        f"{which} begins anew at each of its calls. Decode so many at once as there is room for, or several of them "
        "as the samples of one batch"
    )

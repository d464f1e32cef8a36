"""The calls of a session under one condition, and which of them a call belongs to."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from ..refresh import RefreshPolicy
from .call_inputs import CallInputs, look_at
from .pending import PendingStep
from .program import Program
from .state import StepState
from .token_history import TokenHistory

REMEMBERED = 4
"""Calls of a program that a stream remembers: as many conditions may take turns before they are told apart."""

LOOKED = 8
"""Calls of a stream whose inputs are looked at although the device must be waited for."""

MOST_TRIED = 4
"""So many streams that were each called once are no branches of one step: a condition moves from step to step."""

MOST_STREAMS = 8
"""Streams of a session; one more takes the place of the one that was not called for longest."""


class Stream:
    """Calls under one condition: their caches, and what the refresh policy knows of them.

    Attributes:
        name: what the user called it; None where it was found.
        states: caches by program. kept: those of samples that go on, until it is known under which program.
        histories: of its token axes.
        pending: the last call of each program, while somebody holds its results.
    """

    def __init__(self, number: int, name: str | None = None) -> None:
        self.number = number
        self.name = name
        self.states: dict[Program, StepState] = {}
        self.kept: list[StepState] = []
        self.histories: list[TokenHistory] = []
        self.pending: dict[Program, weakref.ref[PendingStep]] = {}
        self.calls: dict[Program, deque[CallInputs]] = {}
        """What each program was last called with."""
        self.last_calls: dict[int, CallInputs] = {}
        """The same by number of the step method."""
        self.count = 0
        """Calls so far."""
        self.called: set[int] = set()
        """Step methods called in this round of them."""

    def state(self, program: Program, *, anew: bool = False) -> StepState:
        """The caches of a program; ``anew`` where its first step must be in full."""
        if program not in self.states:
            fitting = next((own for own in self.kept if own.fits(program)), None)
            if fitting is not None:
                self.kept.remove(fitting)
            if fitting is None or anew:
                self.states[program] = StepState(program)
            else:
                fitting.move_to(program)
                self.states[program] = fitting
        return self.states[program]

    def keep(self, samples: Tensor) -> None:
        """The call that begins, and later ones, are of these ``samples [B']`` of the last."""
        for program in list(self.pending):
            self.read_pending(program)
        self.pending.clear()
        self.kept = [*self.kept, *(own for own in self.states.values() if not own.is_new)]
        self.states.clear()
        self.calls.clear()
        for state in self.kept:
            state.keep(samples)
        for history in self.histories:
            history.keep(samples)

    def history(self, policy: RefreshPolicy, program: Program, device: torch.device) -> TokenHistory:
        for own in self.histories:
            if own.policy is policy and own.history.age.shape == program.shape:
                return own
        self.histories.append(TokenHistory(policy, *program.shape, device))
        return self.histories[-1]

    def enter(self, method: int, call: CallInputs) -> None:
        """A step method is called with these inputs."""
        if method in self.called:
            self.called.clear()
        self.called.add(method)
        self.count += 1
        self.calls.setdefault(call.program, deque(maxlen=REMEMBERED)).append(call)
        self.last_calls[method] = call

    def read_pending(self, program: Program) -> None:
        """Compute the last call of a step if nobody has read its results but somebody still may."""
        before = self.pending[program]() if program in self.pending else None
        if before is not None:
            before.read_by_holders()

    def begin_again(self) -> None:
        """Forget what was computed: it is of more than one condition."""
        for program, state in self.states.items():
            self.read_pending(program)
            state.end()
        self.histories.clear()

    def close(self) -> None:
        """Free the caches; results that somebody holds are computed before."""
        for program in list(self.pending):
            self.read_pending(program)
        self.discard()

    def discard(self) -> None:
        """Free the caches."""
        for state in (*self.states.values(), *self.kept):
            state.end()
        self.states.clear()
        self.kept.clear()
        self.histories.clear()
        self.pending.clear()
        self.calls.clear()


def is_settled(stream: Stream, call: CallInputs) -> bool:
    """Whether a call is taken for the stream's without a look at its values, for which it would wait for the device."""
    calls = stream.calls[call.program]
    return call.waits and stream.count > LOOKED and call.has_the_same_conditions(calls[-1])


def find_stream(streams: Sequence[Stream], current: Stream | None, method: int, call: CallInputs) -> Stream | None:
    """The stream that a call of a step method belongs to; None where it is the first of a new one.

    Conditional and unconditional calls in turn are two streams. A method that follows another of the same decoding
    step belongs to that one's stream. Any other belongs to the stream whose last inputs are nearest, unless it asks for
    the same tokens under another condition, or shows that calls of one stream take turns.
    """
    if current is not None and current.called and method > max(current.called):
        return current
    found = [own for own in streams if own.name is None]
    known = [own for own in found if call.program in own.calls]
    if len(known) == 1 and is_settled(known[0], call):
        return known[0]
    if known:
        look_at([call, *(before for own in known for before in own.calls[call.program])])
        nearest = min(known, key=lambda own: call.distance(own.calls[call.program][-1]))
        last, *earlier = reversed(nearest.calls[call.program])
        if call.is_another_condition(last):
            return None
        if any(call.reverts(last, before) for before in earlier):
            nearest.begin_again()
            return None
        return nearest
    called = [own for own in found if method in own.last_calls]
    if not called:
        return current
    latest = current if current in called else called[-1]
    look_at([call, latest.last_calls[method]])
    return None if call.is_another_condition(latest.last_calls[method]) else latest

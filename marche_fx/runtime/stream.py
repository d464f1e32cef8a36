"""The calls of a session under one condition, and which of them a call belongs to."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from ..refresh import RefreshPolicy
from .call_inputs import CallInputs, look_at, nearest, take_turns, times_of
from .lengths import Kept
from .method import Settings
from .pending import PendingStep
from .program import Program
from .prologue import Values
from .state import StepState
from .token_history import TokenHistory
from .turns import REMEMBERED, Turns

LOOKED = 8
"""Calls of a stream whose inputs are looked at although the device must be waited for."""

MOST_TRIED = 4
"""So many streams that were each called once are no branches of one step: a condition moves from step to step."""


class Stream:
    """Calls under one condition: their caches, and what the refresh policy knows of them.

    Attributes:
        settings: of the model whose steps it calls. name: what the user called it; None where it was found.
        states: caches by program. kept: those of samples that go on, until it is known under which program.
        histories: of its token axes.
        pending: the last call of each program, while somebody holds its results.
    """

    def __init__(self, number: int, settings: Settings, name: str | None = None) -> None:
        self.number = number
        self.settings = settings
        self.name = name
        self.states: dict[Program, StepState] = {}
        self.kept: list[StepState] = []
        self.histories: list[TokenHistory] = []
        self.pending: dict[Program, weakref.ref[PendingStep]] = {}
        self.calls: dict[Program, deque[CallInputs]] = {}
        """What each program was last called with."""
        self.times: dict[Program, set[int]] = {}
        """Which arguments of a program were seen to move as tokens did, see `times_of`."""
        self.last_calls: dict[int, CallInputs] = {}
        """The same by number of the step method."""
        self.count = 0
        """Calls so far."""
        self.called: set[int] = set()
        """Step methods called in this round of them."""
        self.lost: dict[str, tuple[Program | None, str]] = {}
        """By step method the program of another length whose call before could keep no rows, and why."""
        self.left: dict[Program, Program] = {}
        """Programs of lengths that calls went on from, and those of the lengths that they went on with."""

    def state(self, program: Program, *, anew: bool = False) -> StepState:
        """The caches of a program; ``anew`` where its first step must be in full."""
        if program not in self.states:
            fitting = next((own for own in self.kept if own.fits(program)), None)
            if fitting is not None:
                self.kept.remove(fitting)
            if fitting is None or anew:
                self.states[program] = StepState(program, program.graphs)
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
        self.left.clear()
        for state in self.kept:
            state.keep(samples)
        for history in self.histories:
            history.keep(samples)

    def go_on(self, state: StepState, values: Values, call: CallInputs) -> tuple[int, str]:
        """Give a new state the rows of the nearest call of another length, which stay where they were too.

        They are freed there when two calls of this length in a row show that lengths take no turns.

        Args:
            values: of ``call``, the first of the state.

        Returns:
            How many rows of a sample it has now; why it has none although there were calls of another length.
        """
        program = state.program
        called = [own for own in self.states if own.step == program.step and own in self.calls]
        others = [own for own in called if call.is_of_other_length(self.calls[own][-1])]
        for own in others:
            self.read_pending(own)
        others = [own for own in others if not self.states[own].is_new]
        able = [own for own in others if not program.likeness(own).difference]
        if not able:
            return 0, program.likeness(others[-1]).difference if others else ""
        before = nearest(call, {own: self.calls[own][-1] for own in reversed(able)})
        kept = Kept(before.plan.axes.lengths, program.plan.axes.lengths)
        # Not as inference tensors: a session may go on outside of inference mode.
        with torch.inference_mode(False):
            state.take_rows(self.states[before], kept, values)
        self.drop_histories_of(program.shape, but=program)
        if not any(own.history.age.shape == program.shape for own in self.histories):
            self.histories += [own.at_length(kept) for own in self.histories if own.history.age.shape == before.shape]
        self.leave_for(before)
        self.left[before] = program
        return sum(kept.counts), ""

    def why_rows_are_lost(self, program: Program, reason: str) -> str:
        """Why a length has no rows of the one before, once calls show that they take no turns; empty until then.

        Of a prompt and of none, as guidance has them, lengths take turns, and each keeps rows of its own.

        Args:
            reason: that of this call; empty where it is not the first of its length, or has rows.
        """
        before, why = self.lost.pop(program.step, (None, ""))
        if reason:
            self.lost[program.step] = program, reason
        return why if reason or before is program else ""

    def leave_for(self, program: Program) -> None:
        """Free what calls of other lengths left, which went on with those of ``program``."""
        for before in [own for own, after in self.left.items() if after is program]:
            del self.left[before]
            self.read_pending(before)
            self.states.pop(before).end()
            self.pending.pop(before, None)
            del self.calls[before]
            self.drop_histories_of(before.shape, but=before)

    def drop_histories_of(self, shape: tuple[int, int], but: Program) -> None:
        """Forget those of a token axis that no program but one has caches of."""
        if not any(own.shape == shape and own is not but for own in self.states):
            self.histories = [own for own in self.histories if own.history.age.shape != shape]

    def history(self, policy: RefreshPolicy, program: Program, device: torch.device) -> TokenHistory:
        for own in self.histories:
            if own.policy is policy and own.history.age.shape == program.shape:
                return own
        self.histories.append(TokenHistory(policy, *program.shape, device))
        return self.histories[-1]

    def last_call(self, method: int, program: Program) -> CallInputs:
        """What the stream was last called with: if ever for this program, else of this step method."""
        return self.calls[program][-1] if program in self.calls else self.last_calls[method]

    def call_before(self, program: Program) -> CallInputs | None:
        """What a program was called with before its last call."""
        _, *earlier = reversed(self.calls[program])
        return next(iter(earlier), None)

    def times_of(self, program: Program) -> set[int]:
        """Which arguments of a program tell the time; its last two calls have been looked at."""
        found = self.times.setdefault(program, set())
        before = self.call_before(program)
        if before is not None:
            found |= times_of(self.calls[program][-1], before)
        return found

    def enter(self, method: int, call: CallInputs) -> None:
        """A step method is called with these inputs."""
        last = self.last_calls.get(method)
        if last is not None and last.program is call.program:
            self.leave_for(call.program)
        # What is called again was not left.
        self.left.pop(call.program, None)
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
        self.times.clear()
        self.left.clear()


def is_settled(stream: Stream, call: CallInputs) -> bool:
    """Whether a call is taken for the stream's without a look at its values, for which it would wait for the device."""
    calls = stream.calls[call.program]
    return call.waits and stream.count > LOOKED and call.has_the_same_conditions(calls[-1])


def is_of_other_length(stream: Stream, method: int, call: CallInputs) -> bool:
    return method in stream.last_calls and call.is_of_other_length(stream.last_calls[method])


def find_stream(streams: Sequence[Stream], method: int, call: CallInputs, turns: Turns) -> Stream | None:
    """Which of a model's streams a call of a step method belongs to; None where it is the first of a new one.

    Conditional and unconditional calls in turn are two streams. A method that follows another of the same decoding
    step belongs to that one's stream. Any other belongs to the stream whose last inputs are nearest, unless it asks for
    the same tokens under another condition, or shows that calls of one stream take turns.

    Args:
        turns: of the call's program.
    """
    current = next(reversed(streams), None)
    if current is not None and current.called and method > max(current.called):
        return current
    found = [own for own in streams if own.name is None]
    known = [own for own in found if call.program in own.calls]
    others = [own for own in found if own not in known and is_of_other_length(own, method, call)]
    if len(known) == 1 and not others and is_settled(known[0], call):
        return known[0]
    if others:
        # One of them goes on with this length, unless a stream of this length is as near.
        return nearest(call, {own: own.last_call(method, call.program) for own in (*known, *others)})
    if known:
        of_streams = (before for own in known for before in own.calls[call.program])
        look_at([call, *of_streams, *(before for before, _ in turns.calls)])
        times = {at for each in known for at in each.times_of(call.program)}
        if turns.are_taken:
            return turns.stream_of(call, times, known)
        own = nearest(call, {each: each.calls[call.program][-1] for each in known}, times)
        last, *earlier = reversed(own.calls[call.program])
        if turns.have_begun(call, last, times):
            for each in known:
                # What it has is of more than one sequence.
                each.begin_again()
            return turns.stream_of(call, times, known)
        if call.is_another_condition(last, times):
            return None
        if take_turns(call, last, earlier):
            own.begin_again()
            return None
        return own
    called = [own for own in found if method in own.last_calls]
    if not called:
        return current
    latest = current if current in called else called[-1]
    look_at([call, latest.last_calls[method]])
    return None if call.is_another_condition(latest.last_calls[method]) else latest

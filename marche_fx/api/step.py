"""The method that takes the place of a model's step."""

from __future__ import annotations

import time
import weakref
from collections.abc import Collection
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import called
from ..errors import ArgumentError, CaptureError, UnsupportedModelError
from ..lazy.modes import untraced
from ..lazy.tensor import given_values, resolved
from ..passes.capture.arguments import closed, opened
from ..passes.capture.draws import draws_undone
from ..passes.capture.left import Left
from ..refresh import FullRefresh, RefreshPolicy
from ..runtime.call_inputs import CallInputs
from ..runtime.late_results import late_results
from ..runtime.method import Settings, StepMethod
from ..runtime.open_sessions import current_session
from ..runtime.pace import time_original
from ..runtime.pending import PendingStep
from ..runtime.program import Program
from ..runtime.prologue import Values
from ..runtime.records import SessionLog
from ..runtime.session import Session
from ..runtime.state import StepState
from ..runtime.terminal import saying
from ..runtime.token_history import TokenHistory
from ..runtime.verify import as_traced, original_result
from .captures import Captures
from .forms import Forms
from .programs import Programs
from .refusals import refuse_gradients

LOST_SESSIONS = 3
"""Calls outside of a session after which a warning says that nothing is cached."""


class OptimizedStep:
    """Callable in place of ``model.name``: captures at the first call, then computes active tokens only.

    Args:
        model: a shallow copy of the original, of which the step is captured and whose weights are read at every call.
        method: what `transform` was told of it.
        argument_names: those of all step methods.
        left: what these left in attributes so far.
    """

    def __init__(self, model: nn.Module, method: StepMethod, argument_names: Collection[str], left: Left) -> None:
        self.model = model
        self.method = method
        self.owner: Any = None
        self.captures = Captures(model, method, argument_names, left)
        self.forms = Forms()
        self.calls_outside = 0

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def programs(self) -> Programs:
        """What serves its calls, as far as was captured."""
        return self.captures.programs

    @property
    def settings(self) -> Settings:
        return self.method.settings

    @property
    def policy(self) -> RefreshPolicy:
        return self.method.policy

    # Its graphs are compiled one by one; a torch.compile around the model stops here.
    @untraced
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = given_values(opened((args, kwargs)))
        self.owner.update(self.model)
        if self.owner.whole is not None and not self.programs:
            return self.tried(args, kwargs)
        return self.run(args, kwargs)

    def tried(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The call of a child that nobody asked to transform: where it cannot be, it is the original's."""
        if self.owner.is_given_up:
            return self.original(None, args, kwargs)
        try:
            return self.run(args, kwargs)
        except (UnsupportedModelError, CaptureError, ArgumentError) as error:
            self.owner.give_up(error)
        result = self.original(None, args, kwargs)
        session = current_session(self.owner)
        if session is not None and session.on_refusal is not None:
            # Another child may be what the loop decodes with.
            session.on_refusal()
        return result

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        refuse_gradients(self.method, self.model, args, kwargs)
        session = current_session(self.owner)
        with torch.no_grad():
            if session is not None:
                self.owner.give_back()
                session.begin()
                with session.log.used():
                    return self.call(session, args, kwargs)
            self.count_outside()
            throwaway = Session()
            try:
                with throwaway.log.used():
                    return resolved(self.call(throwaway, args, kwargs))
            finally:
                throwaway.discard()

    def call(self, session: Session, given_args: tuple[Any, ...], given_kwargs: dict[str, Any]) -> Any:
        args, kwargs = self.forms.as_first_passed(getattr(self.model, self.name), given_args, given_kwargs)
        if not any(state.program in self.programs for state in session.states):
            self.drop_outdated()
        program = self.captures.find(args, kwargs)
        writes = program.plan.original.writes
        if writes is None:
            return self.compute(session, program, given_args, given_kwargs)
        writes.check(str(self.method), (args, kwargs))
        results = self.compute(session, program, *writes.beside((given_args, given_kwargs)))
        writes.make((args, kwargs))
        return results

    def compute(
        self, session: Session, program: Program, given_args: tuple[Any, ...], given_kwargs: dict[str, Any]
    ) -> Any:
        began = time.perf_counter()
        args, kwargs = self.forms.as_first_passed(getattr(self.model, self.name), given_args, given_kwargs)
        given = program.given(args, kwargs)
        for draw in program.plan.original.draws:
            draw.make()
        if program.plan.original.tables.left:
            self.leave(program.plan.original.tables.left)
        inputs = CallInputs.of(program, list(given.values()))
        stream = session.stream_of(self.method, program, inputs)
        # Before it is known whether this call is the first that runs.
        stream.read_pending(program)
        unverified = self.settings.verify and not program.verified
        state = stream.state(program, anew=unverified)
        values = state.begin(given)
        expected = None
        original = partial(self.original, program, given_args, given_kwargs)
        if unverified and state.is_new:
            check_began = time.perf_counter()
            with saying(f"checking {self.method} against the original"), as_traced(self.model):
                expected = original_result(str(self.method), original)
            if self.settings.compile:
                time_original(program, program.device(values), time.perf_counter() - check_began, original)
        kept, refused = stream.go_on(state, values, inputs) if state.is_new else (0, "")
        if kept and expected is not None:
            self.verify(program, values, expected)
            expected = None
        lost = stream.why_rows_are_lost(program, refused)
        if lost:
            self.tell_of_new_length(program, lost)
        query = self.queried(program, given_args, given_kwargs)
        history = stream.history(self.policy, program, program.device(values))
        pending = PendingStep(self.method, history, state, values, session.log, stream.number, expected, query, kept)
        pending.record.seconds = 0.0 if state.is_new else time.perf_counter() - began
        before = stream.call_before(program)
        if before is not None:
            pending.moved = partial(inputs.moved_arguments, before)
        if pending.is_checked:
            pending.exact = original()
        stream.pending[program] = weakref.ref(pending)
        if program.is_late:
            return late_results(pending)
        pending.run(None)
        pending.note_read(None)
        pending.results.keep()
        return pending.results.tree()

    def original(self, beside: Program | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the original returns; beside a program, what it writes into arguments and draws is lost."""
        function = getattr(self.model, self.name)
        if beside is None:
            args, kwargs = closed((args, kwargs))
            return function(*args, **kwargs)
        writes, draws = beside.plan.original.writes, beside.plan.original.draws
        args, kwargs = closed((args, kwargs) if writes is None else writes.beside((args, kwargs)))
        # To look at the generators' states costs more than most operators.
        with draws_undone(own.device for own in draws) if draws else nullcontext():
            return function(*args, **kwargs)

    def leave(self, left: Left) -> None:
        """Leave in attributes what the step does, for the loop and for other steps."""
        self.owner.leave(left)
        self.captures.left.update(left)

    def drop_outdated(self) -> None:
        """Forget what was captured of a model that is another one by now."""
        self.owner.look(self.model)
        self.captures.drop_outdated()

    def warn_of_change(self) -> None:
        """Say that the model was changed in a session, whose steps still were what was captured."""
        if self.programs:
            self.owner.update(self.model)
            self.captures.warn_of_change()

    def queried(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """What the user's query says of these arguments, bool ``[B, N]``."""
        if self.settings.query is None or not self.method.is_last:
            return None
        args, kwargs = closed((args, kwargs))
        found = called(f"query, with the arguments of {self.method},", self.settings.query, *args, **kwargs)
        shapes = program.readable
        if not isinstance(found, Tensor) or found.dtype is not torch.bool or tuple(found.shape) not in shapes:
            got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            expected = " or ".join(map(str, shapes))
            raise ArgumentError(f"query must return a bool tensor {expected} for {self.method}, got {got}")
        # The loop may go on with its mask before anything is read.
        return program.among_all_tokens(found).clone()

    def verify(self, program: Program, values: Values, expected: Any) -> None:
        """Check a call that goes on with rows of another length: beside these, all of it is computed once."""
        history = TokenHistory(FullRefresh(), *program.shape, program.device(values))
        PendingStep(self.method, history, StepState(program), values, SessionLog(), 0, expected).run(None)

    def tell_of_new_length(self, program: Program, reason: str) -> None:
        """Say once that a session computes every token anew because their number changed."""
        self.method.warn_once(
            f"{self.method} was called with {program.tokens} tokens after another number in the same session, and "
            f"computes every token anew, since {reason} is another for another length. Pad to a fixed length to keep "
            "cached rows",
            topic="length",
        )

    def count_outside(self) -> None:
        self.calls_outside += 1
        if self.calls_outside == LOST_SESSIONS:
            self.method.warn_once(
                f"{self.method} was called {LOST_SESSIONS} times outside of a session, so every token was recomputed. "
                "Decode inside `with marche_fx.decoding(model):`."
            )

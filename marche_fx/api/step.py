"""The method that takes the place of a model's step."""

from __future__ import annotations

import threading
import time
import weakref
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import called
from ..errors import ArgumentError, CaptureError, UnsupportedModelError
from ..lazy.modes import untraced
from ..lazy.tensor import given_values, resolved
from ..passes.analysis.plan import Plan
from ..passes.capture.alone import LOCK
from ..passes.capture.arguments import closed, opened
from ..passes.capture.bools import numbers_of_bools, serves_bools
from ..passes.capture.capture import capture
from ..passes.capture.captured import Capture
from ..passes.capture.draws import draws_undone
from ..passes.capture.lengths import AnyLength
from ..passes.capture.rehearsal import state_after
from ..passes.capture.stored import Premises, Stored
from ..passes.capture.structure import Attributes, Place, changed_attributes, structure
from ..passes.capture.surroundings import Surroundings
from ..passes.lower.shared import SharedCode
from ..passes.pipeline import make_plan, plan_of
from ..passes.recent import use
from ..refresh import FullRefresh, RefreshPolicy
from ..runtime.call_inputs import CallInputs
from ..runtime.late_results import late_results
from ..runtime.method import Settings, StepMethod, dropped_in_words
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
from ..runtime.verify import as_traced
from ..runtime.weights import fits_weights
from .enclosing import is_under_compile
from .forms import Forms
from .lengths import Lengths
from .programs import Programs
from .refusals import refuse_gradients, refuse_in_full, refuse_unknown_names, tell_of_what_is_missing

SIGNATURES = 8
"""Captures of one step after which a warning says that its arguments keep changing."""

LOST_SESSIONS = 3
"""Calls outside of a session after which a warning says that nothing is cached."""


class OptimizedStep:
    """Callable in place of ``model.name``: captures at the first call, then computes active tokens only.

    Args:
        model: a shallow copy of the original, of which the step is captured and whose weights are read at every call.
        method: what `transform` was told of it.
    """

    def __init__(self, model: nn.Module, method: StepMethod) -> None:
        self.model = model
        self.method = method
        self.owner: Any = None
        self.programs = Programs()
        self.stored: list[Stored] = []
        """Captures of another process, see `save_captures`."""
        self.lengths = Lengths()
        self.shared = SharedCode()
        """What was compiled, for one length or for many."""
        self.structure = structure(model)
        self.surroundings = Surroundings()
        """What captured steps read beside the model."""
        self.assigned: frozenset[Place] = frozenset()
        """What captured steps set in the model themselves, which makes it no other one."""
        self.forms = Forms()
        self.lock = threading.Lock()
        self.calls_outside = 0

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def full_name(self) -> str:
        return f"{type(self.model).__name__}.{self.name}"

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
        refuse_gradients(self.model, self.name, args, kwargs)
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
        program = self.program(args, kwargs)
        writes = program.plan.original.writes
        if writes is None:
            return self.compute(session, program, given_args, given_kwargs)
        writes.check(self.name, (args, kwargs))
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
        inputs = CallInputs.of(program, list(given.values()))
        stream = session.stream_of(self.method.order, program, inputs)
        # Before it is known whether this call is the first that runs.
        stream.read_pending(program)
        unverified = self.settings.verify and not program.verified
        state = stream.state(program, anew=unverified)
        values = state.begin(given)
        expected = None
        if unverified and state.is_new:
            check_began = time.perf_counter()
            with saying(f"checking {self.full_name} against the original"), as_traced(self.model):
                expected = self.original(program, given_args, given_kwargs)
            if self.settings.compile:
                again = partial(self.original, program, given_args, given_kwargs)
                time_original(program, program.device(values), time.perf_counter() - check_began, again)
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
        if pending.is_checked:
            pending.exact = self.original(program, given_args, given_kwargs)
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

    def drop_outdated(self) -> None:
        """Forget what was captured of a model that has other modules, hooks or attributes by now."""
        with self.lock:
            now = {**structure(self.model), **self.surroundings.attributes()}
            changed = [place for place in changed_attributes(self.structure, now) if place not in self.assigned]
            if changed:
                self.structure, self.surroundings, self.assigned = structure(self.model), Surroundings(), frozenset()
                self.programs, self.stored = Programs(dropped=self.programs.dropped), []
                self.lengths.forget()
                self.shared = SharedCode()

    def seen(self) -> Attributes:
        """What a capture would bake in of the model as it is now."""
        self.owner.update(self.model)
        return structure(self.model)

    def take_in_own_change(self, before: Attributes) -> None:
        """What was put into the model since, which computes the same, makes it no other one."""
        now = self.seen()
        changed = changed_attributes(before, now)
        with self.lock:
            kept = {place: values for place, values in self.structure.items() if place not in changed}
            self.structure = {**kept, **{place: now[place] for place in changed if place in now}}

    def warn_of_change(self) -> None:
        """Say that the model was changed in a session, whose steps still were what was captured."""
        if not self.programs:
            return
        self.owner.update(self.model)
        # What stands beside the model, as a table on its class, other models may have filled.
        beside = self.surroundings.attributes()
        before = {place: values for place, values in self.structure.items() if place not in beside}
        changed = [own for own in changed_attributes(before, structure(self.model)) if own not in self.assigned]
        if self.model.training:
            # A loop's last act: no step runs in training.
            changed = [own for own in changed if own[1] != "training"]
        if changed:
            path, name = changed[0]
            self.method.warn_once(
                f"{f'{path}.{name}'.removeprefix('.')!r} was changed inside of a session, whose steps went on as they "
                "were captured. Change a model between sessions; weights may be written at any time",
                topic="changed inside",
            )

    def program(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """The rewritten step for arguments of this kind, captured if it is the first time."""
        found = self.known_program(args, kwargs)
        if found is not None:
            return found
        # Threads that have their program go on; those that need the same new one find it when it is their turn.
        with LOCK:
            return self.known_program(args, kwargs) or self.new_program(args, kwargs)

    def known_program(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program | None:
        near = self.programs.near(args, kwargs)
        fitting = [own for own in near if own.accepts(args, kwargs)]
        fitting = fitting or [own for own in near if own.accepts_bools(args, kwargs)]
        return next((use(own) for own in fitting if self.holds(own, args, kwargs)), None)

    def holds(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the step would still make of its own tables what was captured."""
        tables = program.plan.original.tables
        return tables.hold_for(self.model, lambda: state_after(self.model, self.name, args, kwargs, tables))

    def new_program(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        if self.settings.compile and is_under_compile():
            self.method.warn_once(
                f"{self.name} was called under torch.compile, which leaves it alone: transform compiles a step itself. "
                "Call the transformed model without torch.compile",
                topic="compiled twice",
            )
        before = self.structure
        alike = [own for own in self.programs.near(args, kwargs) if own.accepts_bools(args, kwargs, proven=False)]
        # A trace shows whether one that has numbers in place of bools serves these too.
        anew = capture(self.model, self.name, args, kwargs) if alike else None
        for own in alike:
            if anew is not None and serves_bools(own.plan.original, anew) and self.holds(own, args, kwargs):
                own.bools.add(numbers_of_bools(own.plan.original, args, kwargs))
                return use(own)
        with saying(f"capturing {self.full_name}"):
            plan = self.plan(args, kwargs) if anew is None else plan_of(anew, exact_sites=self.policy.exact_sites)
        if self.settings.strict:
            refuse_in_full(plan)
        signals = self.policy.signals if self.method.is_last_of_policy else ()
        program = Program(
            plan,
            self.model,
            signals=signals,
            compile=self.settings.compile,
            skip_unread=self.method.skips_unread,
            # In full, rows are what the original computes of all tokens, to the last bit.
            headed=self.policy != FullRefresh(),
            tolerance=self.settings.tolerance,
            cache_dtype=self.settings.cache_dtype,
            shared=self.shared,
            graphs=self.settings.graphs,
            pack_weights=self.settings.pack_weights,
        )
        refuse_unknown_names(program, self.settings.tolerance, self.owner.argument_names)
        tell_of_what_is_missing(self.method, program)
        with self.lock:
            if self.structure is not before:
                # Another thread found the model changed meanwhile; this program is as old as those it dropped.
                return program
            # One that accepts the arguments was made for other tables than those that are there now.
            self.add(use(program), args, kwargs)
            self.assigned |= plan.original.tables.places | plan.original.tables.written
            self.surroundings = self.surroundings.joined(plan.original.tables.surroundings)
            self.structure = {**self.structure, **self.surroundings.attributes()}
        traced = [own for own in self.programs if not own.plan.original.is_instance]
        if len(traced) == SIGNATURES and program in traced:
            self.method.warn_once(
                f"{self.name} was captured for {SIGNATURES} kinds of arguments (shapes, dtypes, devices, plain "
                "values). Each costs a capture; pad inputs to few shapes, and pass numbers that change as tensors."
            )
        return program

    def add(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep a program for later calls, and drop what there is no room for, with what was compiled for that alone."""
        before, most = self.programs, self.settings.max_captures
        self.programs = before.with_new(program, args, kwargs, most)
        if self.programs.dropped == before.dropped:
            return
        self.shared.keep(own.lowered for own in self.programs)
        self.lengths.keep([own.plan.original for own in self.programs])
        self.method.warn_once(dropped_in_words(self.name, most), topic="dropped")

    def plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        """What to do with a step for arguments of this kind; captured unless another process did that."""
        exact_sites = self.policy.exact_sites
        for stored in list(self.stored):
            if stored.holds_for(args, kwargs) and fits_weights(stored.capture, self.model):
                # Used now or never: what changes later is a change of this process.
                self.stored.remove(stored)
                restored = self.restored(stored, args, kwargs)
                if restored is not None:
                    if stored.guards is None:
                        return plan_of(restored, exact_sites=exact_sites)
                    self.lengths.found.append(AnyLength.of(restored, stored.guards))
        known = [own.plan.original for own in self.programs]
        capturing = partial(self.lengths.capture, known=known, tell=self.tell_of_lengths)
        return make_plan(self.model, self.name, args, kwargs, exact_sites=exact_sites, capturing=capturing)

    def restored(self, stored: Stored, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Capture | None:
        """A capture of another process with the tables of this one; None, after a warning, where these are others."""
        tables = stored.rehearsed(self.model, args, kwargs)
        changed = stored.premises.differences(Premises.of(tables, tables.surroundings.attributes()))
        if not changed:
            return replace(stored.capture, tables=tables)
        where, name = changed[0]
        self.method.warn_once(
            f"a saved capture of {self.name} is not used: {name!r} of {where or 'the model'} is another than "
            "where it was made; the step is captured anew",
            topic="other premises",
        )
        return None

    def tell_of_lengths(self, reason: str) -> None:
        """Say why one capture does not serve many lengths."""
        self.method.warn_once(
            f"{self.name} is captured anew for each shape of its arguments, since {reason}. Pad to few shapes",
            topic="lengths",
        )

    def queried(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """What the user's query says of these arguments, bool ``[B, N]``."""
        if self.settings.query is None or not self.method.is_last:
            return None
        args, kwargs = closed((args, kwargs))
        found = called(f"query, with the arguments of {self.name},", self.settings.query, *args, **kwargs)
        shapes = program.readable
        if not isinstance(found, Tensor) or found.dtype is not torch.bool or tuple(found.shape) not in shapes:
            got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            expected = " or ".join(map(str, shapes))
            raise ArgumentError(f"query must return a bool tensor {expected} for {self.name}, got {got}")
        # The loop may go on with its mask before anything is read.
        return program.among_all_tokens(found).clone()

    def verify(self, program: Program, values: Values, expected: Any) -> None:
        """Check a call that goes on with rows of another length: beside these, all of it is computed once."""
        history = TokenHistory(FullRefresh(), *program.shape, program.device(values))
        PendingStep(self.method, history, StepState(program), values, SessionLog(), 0, expected).run(None)

    def tell_of_new_length(self, program: Program, reason: str) -> None:
        """Say once that a session computes every token anew because their number changed."""
        self.method.warn_once(
            f"{self.name} was called with {program.tokens} tokens after another number in the same session, and "
            f"computes every token anew, since {reason} is another for another length. Pad to a fixed length to keep "
            "cached rows",
            topic="length",
        )

    def count_outside(self) -> None:
        self.calls_outside += 1
        if self.calls_outside == LOST_SESSIONS:
            self.method.warn_once(
                f"{self.name} was called {LOST_SESSIONS} times outside of a session, so every token was recomputed. "
                "Decode inside `with marche_fx.decoding(model):`."
            )

"""What was captured of a step: the program that serves a call, made where there is none yet."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from ..passes.analysis.plan import Plan
from ..passes.capture.alone import LOCK
from ..passes.capture.bools import numbers_of_bools, serves_bools
from ..passes.capture.capture import capture
from ..passes.capture.captured import Capture
from ..passes.capture.left import Left
from ..passes.capture.lengths import AnyLength
from ..passes.capture.opaque import own_children
from ..passes.capture.rehearsal import state_after
from ..passes.capture.stored import Premises, Stored
from ..passes.capture.structure import Attributes, Place, are_same, changed_attributes, leaves, structure
from ..passes.capture.surroundings import Surroundings
from ..passes.lower.shared import SharedCode
from ..passes.pipeline import make_plan, plan_of
from ..passes.recent import use
from ..refresh import FullRefresh
from ..runtime.method import StepMethod, dropped_in_words
from ..runtime.program import Program
from ..runtime.terminal import saying
from ..runtime.weights import fits_weights
from .enclosing import is_under_compile
from .left import tell_of_what_is_left
from .lengths import Lengths
from .programs import Programs
from .refusals import refuse_ids, refuse_in_full, refuse_unknown_names, tell_of_what_is_missing

SIGNATURES = 8
"""Captures of one step after which a warning says that its arguments keep changing."""


class Captures:
    """The programs of a step, as long as the model is what they were captured of.

    Args:
        model: a shallow copy of the original, of which the step is captured.
        method: what `transform` was told of it.
        argument_names: those of all step methods.
        left: plain values that these left in attributes so far, which each of them may read.
    """

    def __init__(self, model: nn.Module, method: StepMethod, argument_names: Collection[str], left: Left) -> None:
        self.model = model
        self.method = method
        self.argument_names = argument_names
        self.left = left
        self.beside: WeakKeyDictionary[Program, Attributes] = WeakKeyDictionary()
        """Those of other steps that there were when a program was captured."""
        self.beside_lengths: Attributes = {}
        """The same for captures of many lengths."""
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
        self.lock = threading.Lock()

    @property
    def name(self) -> str:
        """Of the step method."""
        return self.method.name

    def find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """The rewritten step for arguments of this kind, captured if it is the first time."""
        found = self.known(args, kwargs)
        if found is not None:
            return found
        # Threads that have their program go on; those that need the same new one find it when it is their turn.
        with LOCK:
            return self.known(args, kwargs) or self.new(args, kwargs)

    def known(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program | None:
        near = self.programs.near(args, kwargs)
        fitting = [own for own in near if own.accepts(args, kwargs)]
        fitting = fitting or [own for own in near if own.accepts_bools(args, kwargs)]
        return next((use(own) for own in fitting if self.holds(own, args, kwargs)), None)

    def holds(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the step would still make of its own tables, and of what other steps left, what was captured."""
        if not self.is_beside(program):
            return False
        tables = program.plan.original.tables
        return tables.hold_for(self.model, lambda: state_after(self.model, self.name, args, kwargs, tables))

    def is_beside(self, program: Program) -> bool:
        """Whether the model has what other steps leave as it had when a program was captured.

        What it had not at all then the program has not read.
        """
        known, now = self.beside.get(program, {}), self.left_by_others
        return all(
            are_same(known[place] if place in known else self.structure.get(place, own), own)
            for place, own in now.items()
        )

    @property
    def left_by_others(self) -> Attributes:
        """What other steps left by now, which the step may read."""
        others = ((place, value) for place, value in self.left.items() if place not in self.assigned)
        return {place: list(leaves(value, set())) for place, value in others}

    def new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        self.tell_of_torch_compile()
        before = self.structure
        if self.beside_lengths != self.left_by_others:
            self.beside_lengths = self.left_by_others
            self.lengths.forget()
        alike = [own for own in self.programs.near(args, kwargs) if own.accepts_bools(args, kwargs, proven=False)]
        # A trace shows whether one that has numbers in place of bools serves these too.
        anew = capture(self.model, self.name, args, kwargs) if alike else None
        for own in alike:
            if anew is not None and serves_bools(own.plan.original, anew) and self.holds(own, args, kwargs):
                own.bools.add(numbers_of_bools(own.plan.original, args, kwargs))
                return use(own)
        with saying(f"capturing {self.method}"):
            exact_sites = self.method.policy.exact_sites
            plan = self.plan(args, kwargs) if anew is None else plan_of(anew, exact_sites=exact_sites)
        program = self.rewritten(plan)
        with self.lock:
            if self.structure is not before:
                # Another thread found the model changed meanwhile; this program is as old as those it dropped.
                return program
            self.assigned |= plan.original.tables.places | plan.original.tables.written
            self.beside[program] = self.left_by_others
            # One that accepts the arguments was made for other tables than those that are there now.
            self.add(use(program), args, kwargs)
            self.surroundings = self.surroundings.joined(plan.original.tables.surroundings)
            self.structure = {**self.structure, **self.surroundings.attributes()}
        self.tell_of_many(program)
        return program

    def rewritten(self, plan: Plan) -> Program:
        """The program of a plan, as `transform` was told to make it."""
        method, settings = self.method, self.method.settings
        if settings.strict:
            refuse_in_full(method, plan)
        program = Program(
            plan,
            self.model,
            signals=method.policy.signals if method.is_last_of_policy else (),
            compile=settings.compile,
            skip_unread=method.skips_unread,
            # In full, rows are what the original computes of all tokens, to the last bit.
            headed=method.policy != FullRefresh(),
            tolerance=settings.tolerance,
            cache_dtype=settings.cache_dtype,
            shared=self.shared,
            graphs=settings.graphs,
            pack_weights=settings.pack_weights,
        )
        refuse_unknown_names(method, program, self.argument_names)
        refuse_ids(method, program)
        tell_of_what_is_missing(method, program)
        tell_of_what_is_left(method, self.model, plan.original.tables)
        return program

    def add(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep a program for later calls, and drop what there is no room for, with what was compiled for that alone."""
        before, most = self.programs, self.method.settings.max_captures
        self.programs = before.with_new(program, args, kwargs, most)
        if self.programs.dropped == before.dropped:
            return
        self.shared.keep(own.lowered for own in self.programs)
        self.lengths.keep([own.plan.original for own in self.programs])
        self.method.warn_once(dropped_in_words(str(self.method), most), topic="dropped")

    def plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        """What to do with a step for arguments of this kind; captured unless another process did that."""
        exact_sites = self.method.policy.exact_sites
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
        now = Premises.of(tables, tables.surroundings.attributes(), self.left_by_others)
        changed = stored.premises.differences(now)
        if not changed:
            own_children(stored.capture.graph_module, self.model)
            return replace(stored.capture, tables=tables)
        where, name = changed[0]
        self.method.warn_once(
            f"a saved capture of {self.method} is not used: {name!r} of {where or 'the model'} is another than "
            "where it was made; the step is captured anew",
            topic="other premises",
        )
        return None

    def tell_of_torch_compile(self) -> None:
        """Say that a `torch.compile` around the step does nothing."""
        if self.method.settings.compile and is_under_compile():
            self.method.warn_once(
                f"{self.method} was called under torch.compile, which leaves it alone: transform compiles a step "
                "itself. Call the transformed model without torch.compile",
                topic="compiled twice",
            )

    def tell_of_many(self, program: Program) -> None:
        """Say that arguments keep changing, once the ``program`` that was just made shows it."""
        traced = [own for own in self.programs if not own.plan.original.is_instance]
        if len(traced) == SIGNATURES and program in traced:
            self.method.warn_once(
                f"{self.method} was captured for {SIGNATURES} kinds of arguments (shapes, dtypes, devices, plain "
                "values). Each costs a capture; pad inputs to few shapes, and pass numbers that change as tensors."
            )

    def tell_of_lengths(self, reason: str) -> None:
        """Say why one capture does not serve many lengths."""
        self.method.warn_once(
            f"{self.method} is captured anew for each shape of its arguments, since {reason}. Pad to few shapes",
            topic="lengths",
        )

    def drop_outdated(self) -> None:
        """Forget what was captured of a model that has other modules, hooks or attributes by now."""
        with self.lock:
            now = {**structure(self.model), **self.surroundings.attributes()}
            known = {*self.assigned, *self.left}
            changed = [place for place in changed_attributes(self.structure, now) if place not in known]
            if changed:
                self.structure, self.surroundings, self.assigned = structure(self.model), Surroundings(), frozenset()
                self.programs, self.stored = Programs(dropped=self.programs.dropped), []
                self.lengths.forget()
                self.shared = SharedCode()

    def take_in_own_change(self, before: Attributes) -> None:
        """What was put into the model since it had ``before``, which computes the same, makes it no other one."""
        now = structure(self.model)
        changed = changed_attributes(before, now)
        with self.lock:
            kept = {place: values for place, values in self.structure.items() if place not in changed}
            self.structure = {**kept, **{place: now[place] for place in changed if place in now}}

    def warn_of_change(self) -> None:
        """Say that the model was changed in a session, whose steps still were what was captured."""
        # What stands beside the model, as a table on its class, other models may have filled.
        beside = self.surroundings.attributes()
        before = {place: values for place, values in self.structure.items() if place not in beside}
        known = {*self.assigned, *self.left}
        changed = [own for own in changed_attributes(before, structure(self.model)) if own not in known]
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

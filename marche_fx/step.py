"""The method that takes the place of a model's step."""

from __future__ import annotations

import inspect
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .choice import ActiveStreams
from .errors import ArgumentError, UnsupportedModelError
from .lazy import LateTensor, resolved
from .monitor import Monitor, drift_of_cached
from .passes.arguments import closed, opened
from .passes.capture import Capture
from .passes.plan import Plan, make_plan, plan_of
from .passes.source import describe
from .passes.structure import changed_attributes, structure
from .refresh import InputDrift, Refresh, RefreshPolicy
from .runtime import Program, StepState, Values, fits_weights
from .session import Session, StepRecord, current_session, open_session, reasons_of
from .verify import check_equal

Query = Callable[..., Tensor]

OWN_CODE = (str(Path(__file__).parent), str(Path(torch.__file__).parent))
"""Folders whose frames a warning looks past."""

SIGNATURES = 8
"""Captures of one step after which a warning says that its arguments keep changing."""

LOST_SESSIONS = 3
"""Calls outside of a session after which a warning says that nothing is cached."""

Form = tuple[int, tuple[str, ...]]
"""How arguments are passed: how many by position, and the names of the others."""


@dataclass
class Settings:
    """What `transform` was given."""

    policies: dict[str, RefreshPolicy]
    """By step method; methods with one and the same object share its choices."""
    query: Query | None
    compile: bool
    verify: bool
    strict: bool
    monitor: Monitor | None = None


class OptimizedStep:
    """Callable in place of ``model.name``: captures at the first call, then computes active tokens only.

    Args:
        model: a shallow copy of the original, of which the step is captured and whose weights are read at every call.
        order: number of this step method among the model's. is_last: whether it is the one whose results the decoding
            loop reads, so that queries and attention are about it.
    """

    def __init__(self, model: nn.Module, name: str, order: int, *, is_last: bool, settings: Settings) -> None:
        self.model = model
        self.name = name
        self.order = order
        self.is_last = is_last
        self.settings = settings
        self.owner: Any = None
        self.programs: list[Program] = []
        self.stored: list[Capture] = []
        """Captures of another process, see `save`."""
        self.structure = structure(model)
        self.forms: dict[tuple[str, ...], Form] = {}
        """For each set of arguments by name, how they were first passed."""
        self.lock = threading.Lock()
        self.calls_outside = 0
        self.warned: set[str] = set()

    @property
    def policy(self) -> RefreshPolicy:
        return self.settings.policies[self.name]

    @property
    def is_last_of_policy(self) -> bool:
        """Whether no later step method has the same policy, so that what it asks for is measured here."""
        sharing = [name for name, policy in self.settings.policies.items() if policy is self.policy]
        return sharing[-1] == self.name

    # Its graphs are compiled one by one; a torch.compile around the model stops here.
    @torch._disable_dynamo
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = resolved(opened((args, kwargs)))
        self.owner.update(self.model)
        self.refuse_gradients(args, kwargs)
        session = current_session(self.owner)
        with torch.no_grad():
            if session is not None:
                return self.call(session, args, kwargs)
            self.count_outside()
            with open_session(self.owner) as throwaway:
                return resolved(self.call(throwaway, args, kwargs))

    def call(self, session: Session, given_args: tuple[Any, ...], given_kwargs: dict[str, Any]) -> Any:
        args, kwargs = self.as_first_passed(given_args, given_kwargs)
        if not any(program in session.states for program in self.programs):
            with self.lock:
                self.drop_outdated()
        program = self.program(args, kwargs)
        self.warn_of_new_length(session, program)
        state = session.state(program)
        values = state.begin(args, kwargs)
        verify = self.settings.verify and state.is_new and not program.verified
        expected = self.original(given_args, given_kwargs) if verify else None
        session.read_pending(program)
        pending = PendingStep(self, session, state, values, expected)
        if pending.is_checked:
            pending.exact = self.original(given_args, given_kwargs)
        session.pending[program] = weakref.ref(pending)
        queried = self.queried(program, given_args, given_kwargs)
        if queried is None and program.is_late and pending.can_wait:
            return pending.late_results()
        pending.run(queried)
        return pending.tree()

    def original(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        args, kwargs = closed((args, kwargs))
        return getattr(self.model, self.name)(*args, **kwargs)

    def as_first_passed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same call with each argument passed as it first was, so that one capture serves both ways."""
        form = (len(args), tuple(kwargs))
        if form in self.forms.values():
            return args, kwargs
        try:
            signature = inspect.signature(getattr(self.model, self.name))
            arguments = signature.bind(*args, **kwargs).arguments
        except (TypeError, ValueError):
            return args, kwargs
        kinds = {name: signature.parameters[name].kind for name in arguments}
        if inspect.Parameter.VAR_POSITIONAL in kinds.values():
            return args, kwargs
        extra: dict[str, Any] = {}
        for name in [name for name, kind in kinds.items() if kind is inspect.Parameter.VAR_KEYWORD]:
            extra = arguments.pop(name)
        by_name = {**arguments, **extra}
        count, names = self.forms.setdefault((*arguments, *sorted(extra)), form)
        positional = list(arguments)[:count]
        return tuple(by_name[name] for name in positional), {name: by_name[name] for name in names}

    def drop_outdated(self) -> None:
        """Forget what was captured of a model that has other modules, hooks or attributes by now."""
        now = structure(self.model)
        if changed_attributes(self.structure, now):
            self.structure = now
            self.programs, self.stored = [], []

    def program(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """The rewritten step for arguments of this kind, captured if it is the first time."""
        with self.lock:
            for program in self.programs:
                if program.accepts(args, kwargs):
                    return program
            plan = self.plan(args, kwargs)
            # A capture may have the model make a table for a new length.
            self.drop_outdated()
            if self.settings.strict and plan.in_full:
                raise UnsupportedModelError(strict_message(plan))
            signals = self.policy.signals if self.is_last_of_policy else ()
            program = Program(
                plan,
                self.model,
                signals=signals,
                compile=self.settings.compile,
                # A monitor compares results that nobody reads.
                skip_unread=self.is_last and self.settings.monitor is None,
            )
            self.programs.append(program)
            if len(self.programs) == SIGNATURES:
                self.warn_once(
                    f"{self.name} was captured for {SIGNATURES} kinds of arguments (shapes, dtypes, devices, plain "
                    "values). Each costs a capture; pad inputs to few shapes, and pass numbers that change as tensors."
                )
            return program

    def plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan:
        """What to do with a step for arguments of this kind; captured unless another process did that."""
        exact_sites = self.policy.exact_sites
        for stored in self.stored:
            if stored.accepts(args, kwargs) and fits_weights(stored, self.model):
                return plan_of(stored, exact_sites=exact_sites)
        return make_plan(self.model, self.name, args, kwargs, exact_sites=exact_sites)

    def queried(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """What the user's query says of these arguments, bool ``[B, N]``."""
        if self.settings.query is None or not self.is_last:
            return None
        args, kwargs = closed((args, kwargs))
        found = self.settings.query(*args, **kwargs)
        shapes = program.readable
        if not isinstance(found, Tensor) or found.dtype is not torch.bool or tuple(found.shape) not in shapes:
            got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            expected = " or ".join(map(str, shapes))
            raise ArgumentError(f"query must return a bool tensor {expected} for {self.name}, got {got}")
        return program.among_all_tokens(found)

    def refuse_gradients(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kind = type(self.model).__name__
        # The children are shared with the transformed model, whose train() reaches them but not the original itself.
        if self.model.training or any(child.training for child in self.model.children()):
            raise UnsupportedModelError(f"{kind} is in training mode; call model.eval() before {self.name}")
        if not torch.is_grad_enabled():
            return
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if any(tensor.requires_grad for tensor in [*tensors, *self.model.parameters()]):
            raise UnsupportedModelError(
                f"gradients are enabled in {kind}.{self.name}, and cached rows have none. "
                "Decode under torch.no_grad() or torch.inference_mode()."
            )

    def warn_of_new_length(self, session: Session, program: Program) -> None:
        """Say once that a session computes every token anew because their number changed."""
        if program in session.states:
            return
        before = [own.tokens for own in session.states if own in self.programs and own.samples == program.samples]
        if before and program.tokens not in before:
            self.warn_once(
                f"{self.name} was called with {program.tokens} tokens after {before[-1]} in the same session. Cached "
                "rows belong to one length, so every token is computed anew, and each new length costs a capture. Pad "
                "to a fixed length to keep them.",
                topic="length",
            )

    def count_outside(self) -> None:
        self.calls_outside += 1
        if self.calls_outside == LOST_SESSIONS:
            self.warn_once(
                f"{self.name} was called {LOST_SESSIONS} times outside of a session, so every token was recomputed. "
                "Decode inside `with marche_fx.decoding(model):`."
            )

    def warn_once(self, message: str, topic: str = "") -> None:
        """Warn where the user's code called, unless it was about the same topic before; the message when omitted."""
        if (topic or message) not in self.warned:
            self.warned.add(topic or message)
            level, frame = 1, sys._getframe()
            while frame.f_back is not None and frame.f_code.co_filename.startswith(OWN_CODE):
                level, frame = level + 1, frame.f_back
            warnings.warn(message, stacklevel=level)


class PendingStep:
    """One call of a step, computed when its results are read."""

    def __init__(self, step: OptimizedStep, session: Session, state: StepState, values: Values, expected: Any) -> None:
        self.step = step
        self.session = session
        self.state = state
        self.values = values
        self.expected = expected
        self.device = values[state.program.split.incremental.inputs[0]].device
        self.history = session.history(step.policy, state.program, self.device)
        self.history.enter(step.order)
        self.exact: Any = None
        """What the original returns, where the session is monitored in this step."""
        self.leaves: list[Any] | None = None
        self.skipped = False
        self.active, self.computed = (
            torch.zeros(state.program.shape, dtype=torch.bool, device=self.device) for _ in range(2)
        )
        """``[B, N]``, the tokens that this call computed, and those whose results it did."""

    @property
    def program(self) -> Program:
        return self.state.program

    @property
    def is_checked(self) -> bool:
        """Whether cached rows are compared with exact ones after this step."""
        monitor = self.step.settings.monitor
        return monitor is not None and not self.state.is_new and monitor.is_due(self.history.history.step)

    @property
    def can_wait(self) -> bool:
        """Whether every result is a tensor, or known: a number has no stand-in."""
        computed = [leaf.meta["val"] for leaf in self.program.plan.results if isinstance(leaf, fx.Node)]
        return all(isinstance(value, Tensor) for value in computed)

    def read(self, queried: Tensor | None) -> list[Any]:
        """The results as leaves, with the ``queried`` rows ``[B, N]`` computed by this call, unless a later one ran.

        Where None are given, those of all tokens that this call computed.
        """
        # Who reads all rows once may do so again.
        self.state.reads_all |= queried is None
        if self.leaves is None:
            self.run(queried)
        elif self.session.is_current(self) and self.lacks(queried):
            self.run(self.active if queried is None else queried, again=True)
        assert self.leaves is not None
        return self.leaves

    def lacks(self, queried: Tensor | None) -> bool:
        """Whether some of the ``queried``, or of the tokens that it computed, are without results of this call."""
        if queried is None:
            return self.skipped and bool((self.active & ~self.computed).any())
        return bool((queried & ~self.computed).any())

    def run(self, queried: Tensor | None, *, again: bool = False) -> None:
        """Compute the changed tokens, the queried ones and, the first time, the refresh set."""
        policy, history = self.step.policy, self.history
        # A late step may be read outside of the autocast that it was called in.
        with torch.no_grad(), self.program.plan.dense.autocast.restored():
            changed = self.state.changed(self.values, policy.tolerance)
            # Where nobody says which tokens are read, the changed ones speak for them.
            asked = changed if queried is None else queried
            moved = self.state.input_drift(self.values) if InputDrift() in policy.signals else None
            refresh = Refresh(0) if again else history.choose(self.visible(changed), self.visible(asked), moved)
            only_queried = queried is not None and not self.state.reads_all
            active = self.compute(changed, asked, refresh, only_queried=only_queried)
            drift = None if self.exact is None or active.complete else self.drift()
            if drift is not None and self.is_off(drift):
                active = self.compute(changed, asked, Refresh(self.program.tokens))
        self.session.records[-1] = replace(self.session.records[-1], drift=drift)
        self.exact = None
        if queried is None and self.program.is_late and not active.complete:
            self.step.warn_once(
                f"a result of {self.step.name} was read as a whole, and only {sum(active.counts)} of its "
                f"{active.visible} tokens were recomputed. Read the rows you need, as in logits[rows], or pass "
                "query= to transform.",
                topic="read as a whole",
            )
        if self.expected is not None:
            check_equal(self.step.name, self.tree(), self.expected, rounded_to=self.program.rounded_to)
            self.expected = None
            self.program.verified = True

    def compute(self, changed: Tensor, asked: Tensor, refresh: Refresh, *, only_queried: bool = False) -> ActiveStreams:
        """Compute the tokens that changed, are asked for, or are refreshed; take note of it."""
        history, must = self.history, changed | asked
        active = self.state.choose(self.values, must, asked, refresh, history.measured, only_queried=only_queried)
        history.take_in(active.measured)
        signals = self.state.compute(self.values, active, asked)
        self.leaves = self.state.results(self.values)
        history.leave(self.step.order, active, signals)
        computed = torch.zeros_like(self.active).scatter(1, active.positions, True)
        self.active = self.active | computed
        self.computed = self.computed | (computed & asked if active.skips_unread else computed)
        self.skipped |= active.skips_unread
        reasons = reasons_of(active, changed, asked)
        record = StepRecord(self.step.name, self.program, active.counts, active.read, active.visible, reasons)
        self.session.records.append(record)
        return active

    def visible(self, tokens: Tensor) -> Tensor:
        """Those of ``tokens``, bool ``[B, N]``, that the step does not drop."""
        visible = self.state.visible(self.values)
        return tokens if visible is None else tokens & visible

    def drift(self) -> float:
        """How far cached rows of the results are from exact ones."""
        monitor = self.step.settings.monitor
        assert monitor is not None
        assert self.leaves is not None
        exact, step = pytree.tree_leaves(opened(self.exact)), self.history.history.step
        return drift_of_cached(monitor, self.program, self.leaves, exact, self.computed, step)

    def is_off(self, drift: float) -> bool:
        monitor = self.step.settings.monitor
        return monitor is not None and not drift <= monitor.max_drift

    def tree(self) -> Any:
        assert self.leaves is not None
        return closed(pytree.tree_unflatten(self.leaves, self.program.plan.dense.out_spec))

    def late_results(self) -> Any:
        """Stand-ins for the results, which compute them when they are read."""
        leaves = [self.late_result(number, leaf) for number, leaf in enumerate(self.program.plan.results)]
        return closed(pytree.tree_unflatten(leaves, self.program.plan.dense.out_spec))

    def late_result(self, number: int, leaf: Any) -> Any:
        like = leaf.meta["val"] if isinstance(leaf, fx.Node) else None
        if not isinstance(like, Tensor):
            return leaf
        row_output = self.program.row_outputs[number]
        if row_output is None:
            return LateTensor(like, None, lambda _: self.read(None)[number])

        def read(rows: Tensor | None) -> Tensor:
            return self.read(None if rows is None else self.as_tokens(rows, row_output.offset))[number]

        return LateTensor(like, row_output.dims, read)

    def as_tokens(self, rows: Tensor, offset: int) -> Tensor:
        """Rows of a result, bool ``[B, R]``, as positions on the token axis, bool ``[B, N]``."""
        tokens = torch.zeros_like(self.computed)
        tokens[:, offset : offset + rows.shape[1]] = rows
        return tokens


def strict_message(plan: Plan) -> str:
    """Which operators keep a region from running on active tokens alone."""
    found = "\n".join(f"- {describe(node)}" for node in plan.in_full)
    return (
        f"strict=True, and these operators of {plan.dense.step} would run on all tokens:\n{found}\n"
        "Without strict they run in full on cached rows, which is right but slower."
    )

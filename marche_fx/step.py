"""The method that takes the place of a model's step."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from .errors import ArgumentError, UnsupportedModelError
from .lazy import LateTensor, resolved
from .passes.plan import Plan, make_plan
from .passes.source import describe
from .refresh import Refresh, RefreshPolicy
from .runtime import Program, StepState, Values
from .session import Session, StepRecord, current_session, open_session
from .verify import check_equal

Query = Callable[..., Tensor]

SIGNATURES = 8
"""Captures of one step after which a warning says that its arguments keep changing."""

LOST_SESSIONS = 3
"""Calls outside of a session after which a warning says that nothing is cached."""


@dataclass
class Settings:
    """What `transform` was given."""

    policy: RefreshPolicy
    query: Query | None
    compile: bool
    verify: bool
    strict: bool


class OptimizedStep:
    """Callable in place of ``model.name``: captures at the first call, then computes active tokens only.

    Args:
        model: the original, of which the step is captured and whose weights are read at every call.
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
        self.lock = threading.Lock()
        self.calls_outside = 0
        self.warned: set[str] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = resolved((args, kwargs))
        self.refuse_gradients(args, kwargs)
        session = current_session(self.owner)
        with torch.no_grad():
            if session is not None:
                return self.call(session, args, kwargs)
            self.count_outside()
            with open_session(self.owner) as throwaway:
                return resolved(self.call(throwaway, args, kwargs))

    def call(self, session: Session, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        program = self.program(args, kwargs)
        state = session.state(program)
        values = program.begin(args, kwargs)
        verify = self.settings.verify and state.is_new and not program.verified
        expected = getattr(self.model, self.name)(*args, **kwargs) if verify else None
        session.read_pending(program)
        pending = PendingStep(self, session, state, values, expected)
        session.pending[program] = weakref.ref(pending)
        queried = self.queried(program, args, kwargs)
        if queried is None and program.is_late:
            return pending.late_results()
        pending.run(queried)
        return pending.tree()

    def program(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """The rewritten step for arguments of this kind, captured if it is the first time."""
        with self.lock:
            for program in self.programs:
                if program.accepts(args, kwargs):
                    return program
            plan = make_plan(self.model, self.name, args, kwargs)
            if self.settings.strict and plan.region.full:
                raise UnsupportedModelError(strict_message(plan))
            sites = self.settings.policy.sites if self.is_last else 0
            program = Program(plan, self.model, sites=sites, compile=self.settings.compile)
            self.programs.append(program)
            if len(self.programs) == SIGNATURES:
                self.warn_once(
                    f"{self.name} was captured for {SIGNATURES} kinds of arguments (shapes, dtypes, devices, plain "
                    "values). Each costs a capture; pad inputs to few shapes."
                )
            return program

    def queried(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
        """What the user's query says of these arguments, bool ``[B, N]``."""
        if self.settings.query is None or not self.is_last:
            return None
        found = self.settings.query(*args, **kwargs)
        shape = (program.samples, program.tokens)
        if not isinstance(found, Tensor) or found.dtype is not torch.bool or tuple(found.shape) != shape:
            got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ArgumentError(f"query must return a bool tensor {shape} for {self.name}, got {got}")
        return found

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

    def count_outside(self) -> None:
        self.calls_outside += 1
        if self.calls_outside == LOST_SESSIONS:
            self.warn_once(
                f"{self.name} was called {LOST_SESSIONS} times outside of a session, so every token was recomputed. "
                "Decode inside `with marche_fx.decoding(model):`."
            )

    def warn_once(self, message: str) -> None:
        if message not in self.warned:
            self.warned.add(message)
            warnings.warn(message, stacklevel=4)


class PendingStep:
    """One call of a step, computed when its results are read."""

    def __init__(self, step: OptimizedStep, session: Session, state: StepState, values: Values, expected: Any) -> None:
        self.step = step
        self.session = session
        self.state = state
        self.values = values
        self.expected = expected
        self.device = values[state.program.split.incremental.inputs[0]].device
        self.history = session.history(state.program, self.device)
        self.history.enter(step.order)
        self.leaves: list[Any] | None = None
        self.computed = torch.zeros(state.program.shape, dtype=torch.bool, device=self.device)
        """``[B, N]``, the tokens computed by this call."""

    @property
    def program(self) -> Program:
        return self.state.program

    def read(self, queried: Tensor | None) -> list[Any]:
        """The results as leaves, with the ``queried`` rows ``[B, N]`` computed by this call, unless a later one ran."""
        if self.leaves is None:
            self.run(queried)
        elif queried is not None and self.session.is_current(self) and bool((queried & ~self.computed).any()):
            self.run(queried, again=True)
        assert self.leaves is not None
        return self.leaves

    def run(self, queried: Tensor | None, *, again: bool = False) -> None:
        """Compute the changed tokens, the queried ones and, the first time, the refresh set."""
        policy = self.step.settings.policy
        # A late step may be read outside of the autocast that it was called in.
        with torch.no_grad(), self.program.plan.dense.autocast.restored():
            changed = self.state.changed(self.values, policy.tolerance)
            # Where nobody says which tokens are read, the changed ones speak for them.
            asked = changed if queried is None else queried
            refresh = Refresh(0) if again else self.history.choose(policy)
            active = self.state.choose(self.values, changed | asked, refresh)
            attention = self.state.compute(self.values, active, asked)
            self.leaves = self.state.results(self.values)
        self.history.leave(self.step.order, active, attention)
        self.computed = self.computed.scatter(1, active.positions, True)
        self.session.records.append(StepRecord(self.step.name, self.program, active.count, active.visible))
        if queried is None and self.program.is_late and not active.complete:
            self.step.warn_once(
                f"a result of {self.step.name} was read as a whole, and only {active.count} of its {active.visible} "
                "tokens were recomputed. Read the rows you need, as in logits[rows], or pass query= to transform."
            )
        if self.expected is not None:
            check_equal(self.step.name, self.tree(), self.expected)
            self.expected = None
            self.program.verified = True

    def tree(self) -> Any:
        assert self.leaves is not None
        return pytree.tree_unflatten(self.leaves, self.program.plan.dense.out_spec)

    def late_results(self) -> Any:
        """Stand-ins for the results, which compute them when they are read."""
        leaves = [self.late_result(number, leaf) for number, leaf in enumerate(self.program.plan.results)]
        return pytree.tree_unflatten(leaves, self.program.plan.dense.out_spec)

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
    found = "\n".join(f"- {describe(node)}" for node in plan.graph.nodes if node in plan.region.full)
    return (
        f"strict=True, and these operators of {plan.dense.step} would run on all tokens:\n{found}\n"
        "Without strict they run in full on cached rows, which is right but slower."
    )

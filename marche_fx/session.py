"""Sessions: one generation each, owner of its caches."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .choice import ActiveStreams
from .refresh import History, InputDrift, Refresh, RefreshPolicy, Signal, ValueDrift
from .refresh.checking import checked
from .runtime import Program, StepState

if TYPE_CHECKING:
    from .pending import PendingStep


REASONS = ("cached", "changed", "queried", "refreshed")


def reasons_of(active: ActiveStreams, changed: Tensor, queried: Tensor) -> Tensor:
    """Why each token is computed: uint8 ``[B, N]``, an index into `REASONS`."""
    chosen = torch.zeros(changed.shape, dtype=torch.uint8, device=changed.device).scatter(1, active.positions, 3)
    return torch.where((chosen > 0) & changed, 1, torch.where((chosen > 0) & queried, 2, chosen)).to(torch.uint8)


@dataclass(frozen=True)
class StepRecord:
    """What one call of a step computed.

    Attributes:
        counts: tokens computed in each sample, of each stream; read: those of them whose results are. visible: tokens
            that the original computes, of all streams.
        reasons: uint8 ``[B, N]``, an index into `REASONS`: why each token was computed, or that it was not.
        drift: how far cached rows were from exact ones, where a `Monitor` checked; of two records of one step, the
            second is of the tokens computed because the drift was too large.
    """

    name: str
    program: Program = field(repr=False)
    counts: tuple[int, ...]
    read: tuple[int, ...]
    visible: int
    reasons: Tensor = field(repr=False)
    drift: float | None = None

    @property
    def active(self) -> int:
        """Tokens A computed in each of the samples B."""
        return sum(self.counts)

    @property
    def rows(self) -> int:
        return self.active * self.program.samples

    @property
    def original_rows(self) -> int:
        return self.visible * self.program.samples

    @property
    def flops(self) -> float:
        return self.program.cost.incremental(self.counts, self.read)

    @property
    def original_flops(self) -> float:
        return self.program.cost.original(self.visible)


class TokenHistory:
    """The state of one token axis, shared by the step methods that run on it under one policy.

    A decoding step is a round of the step methods: it ends when one of them is called again. All of a round use one
    choice of the policy. The last of them in order tells which tokens were recomputed.
    """

    def __init__(self, policy: RefreshPolicy, samples: int, tokens: int, device: torch.device) -> None:
        self.policy = policy
        self.history = History(torch.zeros(samples, tokens, device=device))
        self.called: set[int] = set()
        self.last_method = -1
        self.choice: Refresh | None = None
        self.drift: Tensor | None = None
        """The mean drift of the tokens refreshed last, not yet on the host."""
        self.drifts: list[float] = []

    def enter(self, method: int) -> None:
        """The step method of this number is called."""
        if method in self.called:
            self.called.clear()
            self.choice = None
            self.history.step += 1
            self.history.age = self.history.age + 1
        self.called.add(method)
        self.last_method = max(self.last_method, method)

    def choose(self, changed: Tensor, queried: Tensor, input_drift: Tensor | None) -> Refresh:
        """The policy's choice, made by the first step method of a round."""
        if self.choice is None:
            history = self.history
            history.changed, history.queried = changed, queried
            if input_drift is not None:
                history.observe(InputDrift(), input_drift)
            self.choice = checked(self.policy, self.policy.choose(history), history)
            if self.choice.count < history.tokens:
                history.partial_steps += 1
                history.spent += self.choice.count / history.tokens
        return self.choice

    @property
    def measured(self) -> list[Tensor]:
        """Numbers on the device that the policy wants on the host."""
        return [] if self.drift is None else [self.drift]

    def take_in(self, measured: Sequence[float]) -> None:
        """`measured` has arrived on the host."""
        for drift in measured:
            self.drift = None
            self.drifts.append(drift)
            self.history.mean_drift, self.history.usual_drift = drift, sum(self.drifts) / len(self.drifts)

    def leave(self, method: int, active: ActiveStreams, signals: dict[Signal, Tensor]) -> None:
        """The step method recomputed ``active`` and measured ``signals``."""
        for signal, now in signals.items():
            self.history.observe(signal, now)
            if isinstance(signal, ValueDrift) and self.history.changed is not None:
                # Tokens that changed moved for their own sake, which says nothing of the cached ones.
                refreshed = now.masked_fill(self.history.changed, float("nan"))
                self.drift = refreshed.nansum() / refreshed.isfinite().sum().clamp(min=1)
        if method == self.last_method:
            self.history.age = self.history.age.scatter(1, active.positions, 0.0)


class Session:
    """The caches and the refresh history of one generation.

    Args:
        is_loop: opened by a call of a loop method, which then shares it with loop methods that it calls.
    """

    def __init__(self, *, is_loop: bool = False) -> None:
        self.is_loop = is_loop
        self.states: dict[Program, StepState] = {}
        self.histories: list[TokenHistory] = []
        self.records: list[StepRecord] = []
        self.pending: dict[Program, weakref.ref[PendingStep]] = {}
        """The last call of each step, while somebody holds its results."""

    def state(self, program: Program) -> StepState:
        if program not in self.states:
            self.states[program] = StepState(program)
        return self.states[program]

    def history(self, policy: RefreshPolicy, program: Program, device: torch.device) -> TokenHistory:
        for own in self.histories:
            if own.policy is policy and own.history.age.shape == program.shape:
                return own
        self.histories.append(TokenHistory(policy, *program.shape, device))
        return self.histories[-1]

    def read_pending(self, program: Program) -> None:
        """Compute the last call of a step if nobody has read its results but somebody still may."""
        before = self.pending[program]() if program in self.pending else None
        if before is not None and before.leaves is None:
            before.run(None)

    def is_current(self, pending: PendingStep) -> bool:
        """Whether the caches are still as ``pending`` left them."""
        return pending.program in self.pending and self.pending[pending.program]() is pending

    def close(self) -> None:
        """Free the caches; what was recorded stays, and so do results that somebody holds."""
        for program in list(self.pending):
            self.read_pending(program)
        self.discard()

    def discard(self) -> None:
        """Free the caches."""
        for state in self.states.values():
            state.release()
        self.states.clear()
        self.histories.clear()
        self.pending.clear()


Owner = Any
"""What a session belongs to: one transformed model."""

SESSIONS: ContextVar[dict[int, Session]] = ContextVar("marche_fx_sessions", default={})  # noqa: B039
"""The innermost open session of each owner in this context; never mutated, only replaced."""


def current_session(owner: Owner) -> Session | None:
    return SESSIONS.get().get(id(owner))


@contextmanager
def open_session(owner: Owner, *, is_loop: bool = False) -> Iterator[Session]:
    """A fresh session for ``owner`` in this context; an enclosing one is left alone and comes back at the end."""
    session = Session(is_loop=is_loop)
    token = SESSIONS.set({**SESSIONS.get(), id(owner): session})
    try:
        yield session
        session.close()
    finally:
        SESSIONS.reset(token)
        session.discard()

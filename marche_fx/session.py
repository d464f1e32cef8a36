"""Sessions: one generation each, owner of its caches."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .choice import ActiveStreams
from .refresh import History, Refresh, RefreshPolicy
from .runtime import Program, StepState

if TYPE_CHECKING:
    from .step import PendingStep


@dataclass(frozen=True)
class StepRecord:
    """What one call of a step computed.

    Attributes:
        counts: tokens computed in each sample, of each stream; visible: those that the original computes, of all.
    """

    name: str
    program: Program = field(repr=False)
    counts: tuple[int, ...]
    visible: int

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
        return self.program.cost.incremental(self.counts)

    @property
    def original_flops(self) -> float:
        return self.program.cost.original(self.visible)


class TokenHistory:
    """The state of one token axis, shared by the step methods that run on it.

    A decoding step is a round of the step methods: it ends when one of them is called again. All of a round use one
    choice of the policy. The last of them in order tells which tokens were recomputed.
    """

    def __init__(self, samples: int, tokens: int, device: torch.device) -> None:
        self.history = History(torch.zeros(samples, tokens, device=device))
        self.called: set[int] = set()
        self.last_method = -1
        self.choice: Refresh | None = None

    def enter(self, method: int) -> None:
        """The step method of this number is called."""
        if method in self.called:
            self.called.clear()
            self.choice = None
            self.history.step += 1
            self.history.age = self.history.age + 1
        self.called.add(method)
        self.last_method = max(self.last_method, method)

    def choose(self, policy: RefreshPolicy) -> Refresh:
        if self.choice is None:
            self.choice = policy.choose(self.history)
        return self.choice

    def leave(self, method: int, active: ActiveStreams, attention: Tensor | None) -> None:
        """The step method recomputed ``active`` and observed ``attention``."""
        if attention is not None:
            self.history.observe(attention)
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
        self.histories: dict[tuple[int, int], TokenHistory] = {}
        self.records: list[StepRecord] = []
        self.pending: dict[Program, weakref.ref[PendingStep]] = {}
        """The last call of each step, while somebody holds its results."""

    def state(self, program: Program) -> StepState:
        if program not in self.states:
            self.states[program] = StepState(program)
        return self.states[program]

    def history(self, program: Program, device: torch.device) -> TokenHistory:
        key = (program.samples, program.tokens)
        if key not in self.histories:
            self.histories[key] = TokenHistory(*key, device)
        return self.histories[key]

    def read_pending(self, program: Program) -> None:
        """Compute the last call of a step if nobody has read its results but somebody still may."""
        before = self.pending[program]() if program in self.pending else None
        if before is not None:
            before.read(None)

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

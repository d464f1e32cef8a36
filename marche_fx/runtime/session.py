"""Sessions: one generation each, owner of its caches."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from ..refresh import RefreshPolicy
from .pending import PendingStep
from .program import Program
from .records import StepRecord
from .state import StepState
from .token_history import TokenHistory


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

    def close(self) -> None:
        """Free the caches; what was recorded stays, and so do results that somebody holds."""
        for program in list(self.pending):
            self.read_pending(program)
        self.discard()

    def discard(self) -> None:
        """Free the caches."""
        for state in self.states.values():
            state.end()
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

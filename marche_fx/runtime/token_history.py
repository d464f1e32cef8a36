"""The ages, signals and choices of one token axis of a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from ..refresh.checking import answer_of
from ..refresh.history import History, Refresh
from ..refresh.policy import RefreshPolicy
from ..refresh.signals import InputDrift, Signal, ValueDrift
from .choose import ActiveStreams
from .lengths import Kept


class TokenHistory:
    """The state of one token axis, shared by the step methods that run on it under one policy.

    A decoding step is a round of the step methods: it ends when one of them is called again. All of a round use one
    choice of the policy. The last of them in order tells which tokens were recomputed.
    """

    def __init__(self, policy: RefreshPolicy, samples: int, tokens: int, device: torch.device) -> None:
        self.policy = policy
        self.history = History(torch.zeros(samples, tokens, device=device, dtype=torch.float32))
        self.called: set[int] = set()
        self.last_method = -1
        self.choice: Refresh | None = None
        self.drift: Tensor | None = None
        """The mean drift of the tokens refreshed last, not yet on the host."""
        self.drifts: list[float] = []

    def at_length(self, kept: Kept) -> TokenHistory:
        """The same for calls of another length."""
        found = copy(self)
        found.history, found.called, found.drifts = self.history.of(kept.rows), {*self.called}, [*self.drifts]
        return found

    @property
    def device(self) -> torch.device:
        return self.history.age.device

    def enter(self, method: int) -> None:
        """The step method of this number is called."""
        if method in self.called:
            self.called.clear()
            self.choice = None
            self.history.step += 1
            self.history.age = self.history.age + 1
        self.called.add(method)
        self.last_method = max(self.last_method, method)

    def choose(
        self, changed: Tensor, queried: Tensor, input_drift: Tensor | None, look: Callable[[], Tensor | None] | None
    ) -> Refresh:
        """The policy's choice, made by the first step method of a round.

        Args:
            look: finds the rows that are exact.
        """
        if self.choice is None:
            history = self.history
            history.changed, history.queried, history.look = changed, queried, look
            if input_drift is not None:
                history.observe(InputDrift(), input_drift)
            self.choice = answer_of(self.policy, history)
            if self.choice.count < history.tokens:
                history.partial_steps += 1
                history.spent += self.choice.count / history.tokens
            # What it reads is of this step.
            history.look = None
        return self.choice

    def keep(self, samples: Tensor) -> None:
        """Go on with these ``samples [B']`` alone."""
        history = self.history
        history.age = history.age[samples]
        history.signals = {own: (last[samples], mean[samples]) for own, (last, mean) in history.signals.items()}
        history.changed = history.queried = self.choice = None

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

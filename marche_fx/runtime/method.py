"""A step method of a transformed model: what `transform` was told of it, and what its user was warned of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..refresh import RefreshPolicy
from .graphs.store import Graphs
from .monitor import Monitor
from .users_code import warn_once

Query = Callable[..., Tensor]


MOST_CAPTURES = 64
"""Captures of a step, or of a denoiser, that are kept unless `transform` is told another number."""


def dropped_in_words(name: str, most: int) -> str:
    """What is warned of where a method was captured more often than there is room for."""
    return (
        f"{name} was captured for more than {most} kinds of arguments (shapes, dtypes, plain values, ..). Those that "
        "were not used for longest are dropped, and captured again when they are called. Pad inputs to few shapes, or "
        "keep more: transform(..., max_captures=...)"
    )


@dataclass
class Settings:
    """What `transform` was given."""

    owner: str
    """What messages call the model: by its class, a child that a loop calls by its path."""
    policies: dict[str, RefreshPolicy]
    """By step method; methods with one and the same object share its choices."""
    query: Query | None
    compile: bool
    verify: bool
    strict: bool
    monitor: Monitor | None = None
    tolerance: Mapping[str, float] = field(default_factory=dict)
    """By name of an argument how far what is computed from it may move before tokens count as changed."""
    cache_dtype: torch.dtype | None = None
    """What cached rows are rounded to that other tokens read."""
    graphs: Graphs | None = None
    """What steps share that run as graphs; None where they run operator by operator."""
    max_captures: int = MOST_CAPTURES
    """Of each step; of more kinds of arguments those go that were not used for longest."""
    pack_weights: bool = False
    """Whether compiled products read packed copies of the weights."""


@dataclass(frozen=True)
class StepMethod:
    """One step method of a transformed model.

    Attributes:
        order: its number among the model's. is_last: whether it is the one whose results the decoding loop reads, so
            that queries and attention are about it.
        warned: topics and messages that its user was warned of. told: these messages in full, for reports.
    """

    name: str
    order: int
    is_last: bool
    settings: Settings
    warned: set[str] = field(default_factory=set, repr=False)
    told: list[str] = field(default_factory=list, repr=False)

    def __str__(self) -> str:
        """As messages name it, so that its user knows which model it is of: ``MaskGit.forward``, ``net.forward``."""
        return f"{self.settings.owner}.{self.name}"

    @property
    def policy(self) -> RefreshPolicy:
        return self.settings.policies[self.name]

    @property
    def monitor(self) -> Monitor | None:
        return self.settings.monitor

    @property
    def is_last_of_policy(self) -> bool:
        """Whether no later step method has the same policy, so that what it asks for is measured here."""
        sharing = [name for name, policy in self.settings.policies.items() if policy is self.policy]
        return sharing[-1] == self.name

    @property
    def skips_unread(self) -> bool:
        """Whether results that nobody reads are left out.

        A later step method reads them all, and so does a monitor.
        """
        return self.is_last and self.monitor is None

    def warn_once(self, message: str, topic: str = "") -> None:
        """Warn where the user's code called, unless it was about the same topic before; the message when omitted."""
        if (topic or message) not in self.warned:
            self.told.append(message)
        warn_once(self.warned, message, topic)

"""A step method of a transformed model: what `transform` was told of it, and what its user was warned of."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType

import torch
from torch import Tensor

from ..refresh import RefreshPolicy
from .monitor import Monitor

OWN_CODE = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent))
"""Folders whose frames a warning looks past."""

MODELS = str(Path(__file__).parents[1] / "models")
"""Models that come with the package, whose loops read as anybody's do."""


Query = Callable[..., Tensor]


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
    tolerance: Mapping[str, float] = field(default_factory=dict)
    """By name of an argument how far what is computed from it may move before tokens count as changed."""
    cache_dtype: torch.dtype | None = None
    """What cached rows are rounded to that other tokens read."""


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


def warn_once(warned: set[str], message: str, topic: str = "") -> None:
    """Warn where the user's code called, unless the topic, the message when omitted, is among those ``warned`` of."""
    if (topic or message) not in warned:
        warned.add(topic or message)
        level, _ = users_frame()
        warnings.warn(message, stacklevel=level)


def users_frame() -> tuple[int, FrameType]:
    """How many frames up, and which, the user's code called."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and is_own(frame):
        level, frame = level + 1, frame.f_back
    return level, frame


def is_own(frame: FrameType) -> bool:
    return is_own_file(frame.f_code.co_filename)


@cache
def is_own_file(name: str) -> bool:
    return name.startswith(OWN_CODE)


def users_line() -> str:
    """``decode.py:41``, where a loop reads: in the user's code, or in a model that comes with the package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_own(frame) and not frame.f_code.co_filename.startswith(MODELS):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"

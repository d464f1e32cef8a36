"""Policies by name, for ``transform(model, refresh="balanced")``."""

from __future__ import annotations

from ..errors import ArgumentError
from .history import RefreshPolicy
from .policies import FullRefresh, SelectiveRefresh

PRESETS: dict[str, RefreshPolicy] = {
    "exact": FullRefresh(),
    "balanced": SelectiveRefresh(0.1),
    "fast": SelectiveRefresh(0.05),
}
"""From exact to cheap."""


def preset(name: str) -> RefreshPolicy:
    """The policy of this name.

    Raises:
        ArgumentError: there is none; the message lists those that exist.
    """
    if name not in PRESETS:
        raise ArgumentError(f"unknown refresh preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]

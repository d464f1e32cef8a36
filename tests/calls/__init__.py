"""Calls of everything public that are wrong in one argument: what each takes, and what it must refuse by name."""

from __future__ import annotations

from collections.abc import Iterator

from .models import MODELS
from .values import VALUES
from .world import BadCall, World

PUBLIC = (*MODELS, *VALUES)

__all__ = ["PUBLIC", "BadCall", "World", "bad_calls"]


def bad_calls() -> Iterator[BadCall]:
    for public in PUBLIC:
        for argument, values in public.bad.items():
            yield from (BadCall(public, argument, value) for value in values)

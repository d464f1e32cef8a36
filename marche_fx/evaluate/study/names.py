"""Loops and variants by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from ...errors import ArgumentError

Named = TypeVar("Named")


def named(known: Mapping[str, Named], names: Sequence[str]) -> dict[str, Named]:
    """Those of these names, in their order among all; all where no names are given.

    Raises:
        ArgumentError: there is none of a name.
    """
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ArgumentError(f"there is no {unknown[0]!r}; there are {', '.join(known)}")
    return {name: value for name, value in known.items() if not names or name in names}

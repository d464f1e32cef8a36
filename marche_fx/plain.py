"""Policies, which are dataclasses of plain values and of one another, as plain values, and JSON files of these."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checks import path_of
from .errors import ArgumentError, CheckpointError
from .saving.files import write_json

LARGEST = 1 << 20
"""No policy and no recipe has more bytes."""


def as_plain(value: Any, known: Mapping[str, type]) -> Any:
    """The names of policies among ``known`` and their arguments, as plain values.

    Raises:
        ArgumentError: there is a policy of another kind, or a function.
    """
    if dataclasses.is_dataclass(value) and known.get(type(value).__name__) is type(value):
        fields = {own.name: as_plain(getattr(value, own.name), known) for own in dataclasses.fields(value) if own.init}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, (list, tuple)):
        return [as_plain(item, known) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ArgumentError(f"only built-in policies of plain values can be saved, and this holds {value!r}")


def from_plain(value: Any, known: Mapping[str, type]) -> Any:
    """The opposite of `as_plain`.

    Raises:
        CheckpointError: the values are no policy among ``known`` and its arguments.
    """
    if isinstance(value, list):
        return tuple(from_plain(item, known) for item in value)
    if not isinstance(value, dict):
        return value
    kind = known.get(value.get("kind", ""))
    if kind is None:
        raise CheckpointError(f"unknown policy {value.get('kind')!r}; known are {', '.join(sorted(known))}")
    try:
        return kind(**{name: from_plain(own, known) for name, own in value.items() if name != "kind"})
    except (TypeError, ArgumentError) as error:
        raise CheckpointError(f"{value['kind']} cannot be made of {value!r}: {error}") from error


def write_plain(path: str | Path, values: Any) -> None:
    """Write plain values as JSON: all of them, or what was there before stays."""
    write_json(path_of("path", path), values)


def read_plain(path: str | Path, what: str = "a policy") -> Any:
    """What a JSON file of ``what`` holds.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with path_of("path", path).open("rb") as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        return json.loads(text, object_pairs_hook=once_each, parse_constant=infinite)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {what} from {path}: {error}") from error


def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON none of whose names stands twice, since readers differ in which of the two they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found


def infinite(word: str) -> float:
    """``Infinity``, as a tolerance may be, or ``-Infinity``; not ``NaN``."""
    if word == "NaN":
        raise ValueError("NaN is no number")
    return float(word)

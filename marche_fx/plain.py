"""Policies, which are dataclasses of plain values and of one another, as plain values, and JSON files of these."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .checks import LONGEST, path_of, shown
from .errors import ArgumentError, CheckpointError
from .saving.files import open_regular, write_json

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
    try:
        return made(value, known)
    except RecursionError as error:
        raise CheckpointError("no policy is nested so deep") from error


def made(value: Any, known: Mapping[str, type]) -> Any:
    if isinstance(value, list):
        return tuple(made(item, known) for item in value)
    if not isinstance(value, dict):
        return value
    name = value.get("kind")
    kind = known.get(name) if isinstance(name, str) else None
    if kind is None:
        raise CheckpointError(f"unknown policy {shown(name)}; known are {', '.join(sorted(known))}")
    try:
        return kind(**{name: made(own, known) for name, own in value.items() if name != "kind"})
    except MISTAKES as error:
        raise CheckpointError(f"{name} cannot be made of {shown(value)}: {str(error)[:LONGEST]}") from error


MISTAKES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What classes raise for arguments of other types than theirs; `ArgumentError` is a `ValueError`."""


def write_plain(path: str | Path, values: Any) -> None:
    """Write plain values as JSON: all of them, or what was there before stays."""
    write_json(path_of("path", path), values)


def read_plain(path: str | Path, what: str = "a policy") -> Any:
    """What a JSON file of ``what`` holds.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with open_regular(path_of("path", path)) as file:
            text = file.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise ValueError(f"it has more than {LARGEST} bytes")
        return parse_json(text, infinite)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"cannot read {what} from {path}: {error}") from error


def parse_json(text: str | bytes, constant: Callable[[str], float] | None = None) -> Any:
    """What a text of JSON holds.

    Args:
        constant: what the words ``NaN`` and ``Infinity`` mean, which JSON does not have; errors when omitted.

    Raises:
        ValueError: it is none. RecursionError: it is nested too deep.
    """
    return json.loads(text, object_pairs_hook=once_each, parse_constant=constant or no_number)


def no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


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

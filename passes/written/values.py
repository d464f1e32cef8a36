"""Plain values as JSON. One that JSON has no word for is an object of one entry: ``{"tuple": [1, 2]}``."""

from __future__ import annotations

import base64
import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ...checks import shown
from ..capture.captured import Autocast
from .classes import loaded_class, name_of_class
from .refused import UnusableError

LARGEST_INTEGER = 2**64
"""No size, seed or token of a step is larger."""

DTYPES = {str(own).removeprefix("torch."): own for own in vars(torch).values() if isinstance(own, torch.dtype)}
LAYOUTS = {str(own): own for own in vars(torch).values() if isinstance(own, torch.layout)}
FORMATS = {str(own): own for own in vars(torch).values() if isinstance(own, torch.memory_format)}

Each = Callable[[Any], Any]


@dataclass(frozen=True)
class Kind:
    """How values of a type are written and read; each takes a function for the values in them."""

    type: type
    write: Callable[[Any, Each], Any]
    read: Callable[[Any, Each], Any]


def listed(own: Any, each: Each) -> list[Any]:
    return [each(item) for item in checked(own, list, tuple, torch.Size, frozenset, set)]


def checked(value: Any, *types: type) -> Any:
    """``value``, which must be of one of these types."""
    if type(value) not in types:
        raise UnusableError(f"it has a {type(value).__name__} where a {types[0].__name__} belongs")
    return value


def named(values: Mapping[str, Any]) -> Callable[[Any, Each], Any]:
    """Reads one of several values by its name."""

    def read(name: Any, each: Each) -> Any:
        found = values.get(checked(name, str))
        if found is None:
            raise UnusableError(f"it names {shortened(name)}, which PyTorch does not have")
        return found

    return read


def read_device(own: Any, each: Each) -> torch.device:
    try:
        return torch.device(checked(own, str))
    except RuntimeError as error:
        raise UnusableError(f"it names a device {shortened(own)}, which PyTorch does not have") from error


def read_float(own: Any, each: Each) -> float:
    return float(named({"nan": math.nan, "inf": math.inf, "-inf": -math.inf})(own, each))


def write_enum(own: enum.Enum) -> dict[str, Any]:
    return {"enum": [*name_of_class(type(own)), own.name]}


def read_enum(own: Any, each: Each) -> Any:
    module, path, name = checked(own, list)
    kind = loaded_class((module, path))
    if not issubclass(kind, enum.Enum) or name not in kind.__members__:
        raise UnusableError(f"it names {shortened(f'{module}.{path}.{name}')}, which is no member of an enumeration")
    return kind.__members__[name]


PLAIN: dict[str, Kind] = {
    "tuple": Kind(tuple, listed, lambda own, each: tuple(listed(own, each))),
    "size": Kind(torch.Size, listed, lambda own, each: torch.Size(listed(own, each))),
    "frozenset": Kind(frozenset, listed, lambda own, each: frozenset(listed(own, each))),
    "dict": Kind(
        dict,
        lambda own, each: [[each(key), each(item)] for key, item in own.items()],
        lambda own, each: {each(key): each(item) for key, item in checked(own, list)},
    ),
    "slice": Kind(
        slice,
        lambda own, each: [each(part) for part in (own.start, own.stop, own.step)],
        lambda own, each: slice(*listed(own, each)),
    ),
    "range": Kind(
        range,
        lambda own, each: [each(part) for part in (own.start, own.stop, own.step)],
        lambda own, each: range(*listed(own, each)),
    ),
    "float": Kind(float, lambda own, each: repr(own), read_float),
    "complex": Kind(
        complex, lambda own, each: [each(own.real), each(own.imag)], lambda own, each: complex(*listed(own, each))
    ),
    "bytes": Kind(
        bytes,
        lambda own, each: base64.b64encode(own).decode(),
        lambda own, each: base64.b64decode(checked(own, str), validate=True),
    ),
    "dtype": Kind(torch.dtype, lambda own, each: str(own).removeprefix("torch."), named(DTYPES)),
    "device": Kind(torch.device, lambda own, each: str(own), read_device),
    "layout": Kind(torch.layout, lambda own, each: str(own), named(LAYOUTS)),
    "memory_format": Kind(torch.memory_format, lambda own, each: str(own), named(FORMATS)),
    "ellipsis": Kind(type(...), lambda own, each: None, lambda own, each: ...),
    "autocast": Kind(
        Autocast,
        lambda own, each: [own.device_type, own.enabled, each(own.dtype)],
        lambda own, each: read_autocast(own, each),
    ),
    "enum": Kind(enum.Enum, lambda own, each: write_enum(own)["enum"], read_enum),
}
"""By the word that stands for it; beside what JSON itself has."""


def read_autocast(own: Any, each: Each) -> Autocast:
    device_type, enabled, dtype = checked(own, list)
    read_device(device_type, each)
    return Autocast(device_type, checked(enabled, bool), checked(each(dtype), torch.dtype))


class Values:
    """Writes and reads values of some kinds."""

    def __init__(self, kinds: Mapping[str, Kind] = PLAIN) -> None:
        self.kinds = kinds
        self.by_type = {kind.type: (word, kind) for word, kind in kinds.items()}

    def write(self, value: Any) -> Any:
        """A value as JSON.

        Raises:
            TypeError: it is of no kind that is known.
        """
        kind = type(value)
        if value is None or kind is str or kind is bool:
            return value
        if kind is int:
            if abs(value) > LARGEST_INTEGER:
                raise TypeError(f"an integer of {value.bit_length()} bits")
            return value
        if kind is float and math.isfinite(value):
            return value
        # Graphs have lists and dicts of their own, which nobody can change.
        if isinstance(value, list):
            return [self.write(item) for item in value]
        word, known = self.by_type.get(
            dict if isinstance(value, dict) and kind.__module__ != "builtins" else kind, NONE
        )
        if isinstance(value, enum.Enum):
            word, known = "enum", self.kinds["enum"]
        if known is None:
            raise TypeError(f"a {kind.__module__}.{kind.__qualname__}")
        return {word: known.write(value, self.write)}

    def read(self, written: Any) -> Any:
        """The opposite of `write`.

        Raises:
            UnusableError: it is nothing that `write` gives.
        """
        if isinstance(written, dict):
            ((word, own),) = written.items() if len(written) == 1 else ((None, None),)
            kind = self.kinds.get(word) if isinstance(word, str) else None
            if kind is None:
                raise UnusableError(f"it holds a value of no known kind: {shortened(word)}")
            return kind.read(own, self.read)
        if isinstance(written, list):
            return [self.read(item) for item in written]
        if type(written) is int and abs(written) > LARGEST_INTEGER:
            raise UnusableError(f"it holds an integer of {written.bit_length()} bits")
        return written


NONE: tuple[str, Kind | None] = "", None

VALUES = Values()


def shortened(value: object) -> str:
    """A value in a message."""
    return shown(value, 80)

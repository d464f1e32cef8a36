"""A file of JSON and tensors: read without executing anything, within bounded memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import ArgumentError
from ..passes.written.refused import UnusableError
from ..plain import parse_json
from .files import DamagedError, open_regular, unsealed, write_sealed

MOST_TEXT = 1 << 26
"""Bytes of JSON: that of some hundred captures of a large model. As objects they need some twenty times as many."""

MOST = 1 << 31
"""Bytes of a file."""

OTHER_VERSION = "it was written by another version of marche_fx.save_captures; save again"

NOT_OURS = "it was not written by this version of marche_fx.save_captures"

LENGTH = 8
"""Bytes of the length of the JSON, which stands before it."""


def write_container(path: Path, heading: bytes, values: Any, rest: bytes) -> None:
    """Write a heading, values as JSON, and bytes.

    Raises:
        ArgumentError: the values are too large to be read again.
    """
    text = compact(values).encode()
    if len(text) > MOST_TEXT or len(text) + len(rest) > MOST - 1024:
        raise ArgumentError(
            f"what was captured is too large for one file: {len(text) + len(rest):,} bytes. Save a model that was "
            "called with fewer shapes"
        )
    write_sealed(path, heading + len(text).to_bytes(LENGTH, "little") + text + rest)


def read_container(path: Path, heading: bytes) -> tuple[Any, bytes]:
    """What `write_container` wrote.

    Raises:
        UnusableError: there is no such file, or it is damaged, too large, or of another kind.
    """
    try:
        with open_regular(path) as file:
            found = file.read(len(heading))
            if found != heading:
                is_other = found.startswith(heading.rstrip(b"0123456789\n"))
                raise UnusableError(OTHER_VERSION if is_other else NOT_OURS)
            content = found + file.read(MOST)
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    try:
        content = unsealed(content)
    except DamagedError as error:
        raise UnusableError("it is damaged") from error
    begin = len(heading) + LENGTH
    end = begin + int.from_bytes(content[len(heading) : begin], "little")
    if not begin < end <= min(len(content), begin + MOST_TEXT):
        raise UnusableError("it is damaged")
    try:
        return parse_json(content[begin:end]), content[end:]
    except (ValueError, RecursionError) as error:
        raise UnusableError(f"what it holds is no JSON: {error}") from error


def tensors_as_bytes(tensors: dict[str, Tensor]) -> bytes:
    """Tensors in the format of safetensors.

    Raises:
        TypeError: it has no word for the type of one.
    """
    try:
        # Copies: two that share memory are two in a file.
        return safetensors.torch.save({name: own.contiguous().clone() for name, own in tensors.items()})
    except (KeyError, ValueError, SafetensorError) as error:
        raise TypeError(f"a constant tensor: {error}") from error


def tensors_of_bytes(content: bytes) -> dict[str, Tensor]:
    """The opposite of `tensors_as_bytes`.

    Raises:
        UnusableError: it is nothing that this wrote.
    """
    try:
        return safetensors.torch.load(content)
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise UnusableError(f"its tensors are damaged: {error}") from error


def compact(values: Any) -> str:
    """JSON in as few bytes as may be, and the same for equal values."""
    return json.dumps(values, allow_nan=False, separators=(",", ":"))

"""Whether an argument is what it must be; where it is not, the error names it and says what it was."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType
from typing import Any

from torch import Tensor

from .errors import ArgumentError

LONGEST = 200
"""Letters of a value in a message."""


def shown(value: object, longest: int = LONGEST) -> str:
    """A value in a message, shortened."""
    try:
        text = repr(value)
    except RecursionError:
        text = "what is nested too deep"
    return text if len(text) <= longest else text[:longest] + " .."


def few(words: Iterable[str], most: int) -> str:
    """``a, b, c and 5 more``: so many words of a message."""
    words = list(words)
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def tensor_in_words(tensor: Tensor) -> str:
    """``float32 [2, 8, 64]``"""
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def is_count(value: object, least: int = 0) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least


def is_number(value: object) -> bool:
    """Whether it is a number that is finite or infinite, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)


def check_count(name: str, value: object, *, least: int = 0) -> None:
    if not is_count(value, least):
        raise ArgumentError(f"{name} must be a whole number of at least {least}, got {shown(value)}")


def check_positive(name: str, value: Any) -> None:
    if not is_number(value) or not value > 0:
        raise ArgumentError(f"{name} must be a positive number, got {shown(value)}")


def check_not_negative(name: str, value: Any) -> None:
    if not is_number(value) or value < 0:
        raise ArgumentError(f"{name} must be a number that is not negative, got {shown(value)}")


def check_share(name: str, value: Any) -> None:
    if not is_number(value) or not 0 <= value <= 1:
        raise ArgumentError(f"{name} must lie in 0..1, got {shown(value)}")


def check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, got {shown(value)}")


def check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{name} must be a text that is not empty, got {shown(value)}")


def check_word(name: str, value: object, known: Iterable[str]) -> None:
    words = tuple(known)
    if not isinstance(value, str) or value not in words:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, words))}, got {shown(value)}")


def check_callable(name: str, value: object) -> None:
    if not callable(value):
        raise ArgumentError(f"{name} must be callable, got {shown(value)}")


def check_kind(name: str, value: object, *kinds: type) -> None:
    if not isinstance(value, kinds):
        wanted = " or ".join("None" if own is NoneType else own.__name__ for own in kinds)
        raise ArgumentError(f"{name} must be of type {wanted}, got {shown(value)}")


def check_sequence(name: str, value: object) -> None:
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise ArgumentError(f"{name} must be a list or a tuple, got {shown(value)}")


def path_of(name: str, value: object) -> Path:
    """The path that was given as a text or a `Path`.

    Raises:
        ArgumentError: it is none.
    """
    if not isinstance(value, (str, os.PathLike)) or not isinstance(os.fspath(value), str) or not os.fspath(value):
        raise ArgumentError(f"{name} must be a path, as a text that is not empty or a Path, got {shown(value)}")
    return Path(value)


def called(name: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function of the user's own returns.

    Raises:
        ArgumentError: it does not take these arguments. What it raises itself is left as it is.
    """
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is None:
            raise ArgumentError(f"{name} cannot be called as it is to be: {error}") from error
        raise

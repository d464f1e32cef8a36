"""Why what was read is of no use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UnusableError(Exception):
    """What was read is damaged, made for something else, or asks for what no file may ask for."""


@contextmanager
def malformed_is_unusable() -> Iterator[None]:
    """What reads a file finds all kinds of things where others belong, and says that the file is of no use."""
    try:
        yield
    except MALFORMED as error:
        raise UnusableError(f"what it holds is not what was written: {type(error).__name__}: {error}"[:300]) from error


MALFORMED = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError),
    *(RecursionError, RuntimeError, TypeError, ValueError),
)
"""How Python and PyTorch say so."""

"""Errors raised in the middle: at the n-th operator that runs, or at the n-th call of a function of the package."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

import marche_fx

OWN = str(Path(marche_fx.__file__).parent)


class InjectedError(Exception):
    """In place of whatever may go wrong."""


class RaisesAt(TorchDispatchMode):
    """Raises at the operator of a number, counted from 0; counts all of them where that is None.

    Args:
        make: the error.
    """

    def __init__(self, number: int | None, make: Callable[[], BaseException] = InjectedError) -> None:
        super().__init__()
        self.number = number
        self.make = make
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        number, self.count = self.count, self.count + 1
        if number == self.number:
            raise self.make()
        return func(*args, **(kwargs or {}))


@contextmanager
def raising_at_call(number: int | None, make: Callable[[], BaseException] = InjectedError) -> Iterator[list[str]]:
    """Raise at the call of this number of a function of the package, as Ctrl-C may; tells which were called."""
    called: list[str] = []

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(OWN):
            return
        called.append(f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}")
        if len(called) - 1 == number:
            sys.setprofile(None)
            raise make()

    sys.setprofile(profile)
    try:
        yield called
    finally:
        sys.setprofile(None)

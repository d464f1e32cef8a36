"""Names that go: until then they work, and a warning says what to write instead."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .errors import ArgumentError

Given = ParamSpec("Given")
Returned = TypeVar("Returned")

GOES_IN = "0.4"
"""The version in which the old names of 0.2 go."""


def tell_renamed(old: str, new: str) -> None:
    """Tell whoever called what calls this."""
    warnings.warn(f"{old} is now called {new}; the old name goes in version {GOES_IN}", FutureWarning, stacklevel=3)


def renamed_argument(old: str, new: str) -> Callable[[Callable[Given, Returned]], Callable[Given, Returned]]:
    """Let a function take its argument ``new`` by the name ``old`` too."""

    def taking_both(function: Callable[Given, Returned]) -> Callable[Given, Returned]:
        @functools.wraps(function)
        def call(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
            if old in kwargs:
                tell_renamed(f"{old}= of {function.__name__}", f"{new}=")
                if new in kwargs:
                    raise ArgumentError(f"{function.__name__} takes {new}= or {old}=, its old name, not both")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return taking_both


def renamed_function(old: str, function: Callable[Given, Returned]) -> Callable[Given, Returned]:
    """A function of ``marche_fx`` by the name that it had."""

    @functools.wraps(function)
    def call(*args: Given.args, **kwargs: Given.kwargs) -> Returned:
        tell_renamed(f"marche_fx.{old}", f"marche_fx.{function.__name__}")
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = old
    return call

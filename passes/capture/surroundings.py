"""What a step reads of its surroundings: globals and attributes of classes, named by the functions that ran."""

from __future__ import annotations

import dis
import functools
import gc
import inspect
import sys
import types
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

from torch import nn

from .structure import ATOMS, Attributes, Place, leaves

OWN = __name__.rpartition(".capture.")[0]
"""The passes, which the functions of a step run between."""


LIBRARIES = ("torch", "numpy", "sympy", "mpmath")
"""Packages that give the same for the same arguments, whatever tables they keep; walking these takes minutes."""


class Surroundings:
    """Names that the functions of a step look up outside of it, and what stood there when they first ran.

    Args:
        held: classes and modules of Python that the model holds, or has an instance of.
    """

    def __init__(self, held: Iterable[Any] = ()) -> None:
        self.held: dict[str, list[tuple[Any, str]]] = defaultdict(list)
        """To a name the holders that it stands in, and what they are called."""
        for own in held:
            for holder, title in named_spaces(own):
                for name in space(holder):
                    self.held[name].append((holder, title))
        self.names: dict[Place, tuple[Any, str]] = {}
        """To globals as a dict, or a class, and the name in it."""
        self.enclosed: dict[int, tuple[Place, Any]] = {}
        """Variables of enclosing functions, by the id of their value."""
        self.first: Attributes = {}
        self.ran: set[tuple[types.CodeType, type]] = set()
        self.foreign = {getattr(callback, "__code__", None) for callback in gc.callbacks}
        """Code that the collector of garbage runs, between any two lines of a step."""

    def values(self) -> dict[Place, Any]:
        """What stands there now."""
        found = {place: space(holder)[name] for place, (holder, name) in self.names.items() if name in space(holder)}
        return {**found, **dict(self.enclosed.values())}

    def attributes(self) -> Attributes:
        """The same as leaves, comparable with those of `structure`."""
        return {place: list(leaves(value, set())) for place, value in self.values().items()}

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Note what the function that begins to run can read; `sys.setprofile` takes this."""
        module = frame.f_globals.get("__name__", "")
        code = frame.f_code
        # A module that is imported meanwhile makes its globals, and reads none that a step could have changed.
        if event != "call" or is_library(module) or code in self.foreign or code.co_name == "<module>":
            return
        for name in code.co_freevars:
            value = frame.f_locals.get(name)
            if not isinstance(value, (*ATOMS, nn.Module)) and id(value) not in self.enclosed:
                place = (f"a function around {code.co_name} of {module}", f"{name} {len(self.enclosed)}")
                self.enclosed[id(value)] = place, value
                self.first[place] = list(leaves(value, set()))
        owner = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        kind = owner if isinstance(owner, type) else type(owner)
        if (code, kind) in self.ran:
            return
        self.ran.add((code, kind))
        self.watch(frame.f_globals, global_names(code), module)
        for own in (kind, *map(frame.f_globals.get, global_names(code))):
            for holder, title in named_spaces(own):
                self.watch(holder, code.co_names, title)
        for name in code.co_names:
            for holder, title in self.held.get(name, ()):
                self.watch(holder, (name,), title)

    def watch(self, holder: Any, names: Iterable[str], title: str) -> None:
        # Also names that do not stand there yet: the function may set them.
        for name in names:
            place, value = (title, name), space(holder).get(name)
            if place not in self.names and not isinstance(value, (type, types.ModuleType, nn.Module)):
                self.names[place] = (holder, name)
                if name in space(holder):
                    self.first[place] = list(leaves(value, set()))

    def joined(self, other: Surroundings) -> Surroundings:
        found = Surroundings()
        found.names, found.enclosed = {**self.names, **other.names}, {**self.enclosed, **other.enclosed}
        return found

    def settle(self) -> None:
        """Forget the names that nothing stands under: those of methods and attributes."""
        self.names = {place: (holder, name) for place, (holder, name) in self.names.items() if name in space(holder)}


BY_NAME = frozenset(
    (
        *("LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"),
        *("LOAD_NAME", "STORE_NAME", "DELETE_NAME"),
    )
)
"""Instructions on names that stand in no local variable and belong to no object."""


@functools.cache
def global_names(code: CodeType) -> tuple[str, ...]:
    """What a function reads or sets by a name alone; a global of the name of an attribute is somebody else's."""
    return tuple(dict.fromkeys(own.argval for own in dis.get_instructions(code) if own.opname in BY_NAME))


def named_spaces(value: Any) -> Iterator[tuple[Any, str]]:
    """A module of Python as a dict, or a class with its bases and metaclasses, each with its title; no library's."""
    if isinstance(value, types.ModuleType) and not is_library(value.__name__):
        yield vars(value), value.__name__
    elif isinstance(value, type):
        for base in [*value.__mro__, *inspect.getmro(type(value))]:
            if not is_library(base.__module__):
                yield base, f"class {base.__qualname__} of {base.__module__}"


def space(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else vars(holder)


def is_library(module: str) -> bool:
    root = module.partition(".")[0]
    return root in LIBRARIES or root in sys.stdlib_module_names or module.startswith(OWN)


@contextmanager
def noted(surroundings: Surroundings) -> Iterator[None]:
    """Note what the functions read that run inside of the context, in this thread."""
    before: Any = sys.getprofile()
    sys.setprofile(surroundings.note)
    try:
        yield
    finally:
        sys.setprofile(None)
        if hasattr(before, "enable"):
            # A profiler written in C, which goes on as it was.
            before.enable()
        else:
            sys.setprofile(before)
        surroundings.settle()

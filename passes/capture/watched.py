"""Attributes that a step writes before it reads them: what earlier calls left there means nothing to it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from torch import nn

from .structure import Place

ABSENT = object()


class Watched:
    """Stands in a class for an attribute of its one instance, and notes whether its first value is read."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name
        self.begin()

    def begin(self) -> None:
        """What is there now is the first value."""
        self.first, self.was_read, self.was_set = self.value(), False, False

    def value(self) -> Any:
        tables = (vars(self.module), self.module._buffers, self.module._parameters)
        return next((table[self.name] for table in tables if self.name in table), ABSENT)

    def __get__(self, module: Any, kind: type) -> Any:
        if module is None:
            return self
        # A trace reads through a stand-in for the module.
        value = self.value()
        # The methods of modules ask what is there before they set it.
        is_read = sys._getframe(1).f_code.co_filename != nn.modules.module.__file__
        self.was_read |= is_read and value is self.first and not self.was_set
        if value is ABSENT:
            raise AttributeError(f"{kind.__name__!r} object has no attribute {self.name!r}")
        return value

    def __set__(self, module: Any, value: Any) -> None:
        self.was_set = True
        vars(self.module)[self.name] = value

    def __delete__(self, module: Any) -> None:
        del vars(self.module)[self.name]


def watch(model: nn.Module, places: Iterable[Place]) -> dict[Place, Watched]:
    """Watch attributes of a model's modules from now on; by changing the modules' classes, so give it copies."""
    modules = dict(model.named_modules())
    found = {}
    for path, name in sorted(places):
        module = modules.get(path)
        if module is None or (name.startswith("_") and name in vars(nn.Module())):
            continue
        kind, watched = type(module), Watched(module, name)
        own = {name: watched, "__module__": kind.__module__, "__qualname__": kind.__qualname__, "__slots__": ()}
        module.__class__ = type(kind.__name__, (kind,), own)
        found[path, name] = watched
    return found

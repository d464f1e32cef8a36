"""Classes by name, among those that this process has loaded: to read a name imports nothing and calls nothing."""

from __future__ import annotations

import sys
from typing import Any

from .refused import UnusableError


def name_of_class(kind: type) -> list[str]:
    return [kind.__module__, kind.__qualname__]


def loaded_class(name: Any) -> type:
    """The class of a name that `name_of_class` gave.

    Raises:
        UnusableError: there is none in this process.
    """
    module, path = name
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        # Not by `getattr`, which a module may answer with code of its own.
        found = None if found is None else vars(found).get(part)
    if not isinstance(found, type):
        raise UnusableError(f"it names a class {module}.{path}, which this process has not loaded")
    return found

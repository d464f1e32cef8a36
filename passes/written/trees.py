"""How arguments and results are nested, as JSON: a leaf is null, all else names the type of a container."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, defaultdict, deque
from typing import Any

from torch.utils import _pytree as pytree

from ..capture.arguments import ATTRS, Fields
from .classes import loaded_class, name_of_class
from .refused import UnusableError
from .values import VALUES, checked, shortened

PLAIN: dict[str, type] = {"tuple": tuple, "list": list, "dict": dict, "OrderedDict": OrderedDict, "deque": deque}
"""Containers whose contexts are plain values."""

FACTORIES: dict[str, Any] = {own.__name__: own for own in (list, dict, tuple, set, int, float, str, bool)}
"""What may make the missing entries of a `defaultdict`."""


def write_tree(spec: pytree.TreeSpec) -> Any:
    """A tree as JSON.

    Raises:
        TypeError: it has a container that cannot be named.
    """
    if spec.is_leaf():
        return None
    word, context = write_container(spec.type, spec.context)
    return {"kind": word, "context": context, "children": [write_tree(own) for own in spec.children()]}


def write_container(kind: Any, context: Any) -> tuple[Any, Any]:
    if kind in PLAIN.values():
        return next(name for name, own in PLAIN.items() if own is kind), VALUES.write(context)
    if kind is defaultdict:
        factory, keys = context
        if factory is not None and factory not in FACTORIES.values():
            raise TypeError(f"a defaultdict of {factory!r}")
        return "defaultdict", [None if factory is None else factory.__name__, VALUES.write(keys)]
    if kind is Fields:
        own, names = context
        return "fields", [name_of_class(own), VALUES.write(names)]
    if pytree.is_namedtuple_class(kind):
        return "namedtuple", name_of_class(kind)
    return name_of_class(kind), VALUES.write(context)


def read_tree(written: Any) -> pytree.TreeSpec:
    """The opposite of `write_tree`.

    Raises:
        UnusableError: it names no container that is known here.
    """
    if written is None:
        return pytree.treespec_leaf()
    kind, context = read_container(written["kind"], written["context"])
    return pytree.TreeSpec(kind, context, [read_tree(own) for own in checked(written["children"], list)])


def read_container(word: Any, context: Any) -> tuple[Any, Any]:
    if type(word) is str and word in PLAIN:
        return PLAIN[word], VALUES.read(context)
    if word == "defaultdict":
        factory, keys = context
        if factory is not None and factory not in FACTORIES:
            raise UnusableError(f"it names a defaultdict of {shortened(factory)}")
        return defaultdict, [None if factory is None else FACTORIES[factory], VALUES.read(keys)]
    if word == "fields":
        name, names = context
        kind = loaded_class(name)
        if not dataclasses.is_dataclass(kind) and not hasattr(kind, ATTRS):
            raise UnusableError(f"it takes {shortened(kind.__qualname__)} for a class of fields")
        return Fields, (kind, VALUES.read(names))
    if word == "namedtuple":
        kind = loaded_class(context)
        if not pytree.is_namedtuple_class(kind):
            raise UnusableError(f"it takes {shortened(kind.__qualname__)} for a named tuple")
        return kind, kind
    kind = loaded_class(word)
    if kind not in pytree.SUPPORTED_NODES:
        raise UnusableError(f"it takes {shortened(kind.__qualname__)} for a container")
    return kind, VALUES.read(context)

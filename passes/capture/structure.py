"""What a capture bakes in of a model beside its weights: modules, hooks, attributes, and what these hold."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
import types
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..graph.opaque import paths_of
from .arguments import PLAIN
from .copies import LIBRARIES, cell_is_full, instance_attributes

Place = tuple[str, str]
"""Path of a module and name of an attribute; for what belongs to no module, `surroundings` says what stands there."""

Attributes = dict[Place, list[Any]]
"""What is found at a place, as leaves."""

CACHE: Any = type(functools.cache(len))
"""What `functools.lru_cache` makes of a function."""


def attributes(model: nn.Module, weight: Callable[[Tensor | None], Any] = lambda tensor: tensor) -> Attributes:
    """Every attribute of every module, with what is in it; of parameters and buffers ``weight`` of them.

    Of a child that is called as it is the hooks alone, which are in the graph.
    """
    modules = list(seen_modules(model))
    # What several modules hold is told where it is met first.
    seen, opaque = {id(module) for _, module in modules}, {*paths_of(model)}
    found: Attributes = {}
    for path, module in modules:
        for name, value in list(vars(module).items()):
            if path in opaque and "_hooks" not in name:
                continue
            if name in ("_parameters", "_buffers"):
                found |= {(path, own): [weight(tensor)] for own, tensor in list(value.items())}
            elif not isinstance(value, (dict, set)) or value:
                # Every module has a dozen tables of hooks, nearly all of them empty.
                found[path, name] = list(leaves(value, seen))
    return found


def seen_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that a trace sees by path: what is in a child that is called as it is, it does not."""
    opaque, hidden = {*paths_of(model)}, "."
    for path, module in model.named_modules():
        if not path.startswith(hidden):
            yield path, module
        if path in opaque:
            hidden = f"{path}."


def structure(model: nn.Module) -> Attributes:
    """What a captured step does not look up again when it runs: all but the values of parameters and buffers."""
    numbers: dict[int, int] = {}
    # Tied weights have one number.
    return attributes(
        model,
        lambda own: f"{numbers.setdefault(id(own), len(numbers))} {getattr(own, 'shape', 0)} {type(own).__qualname__}",
    )


def leaves(value: Any, seen: set[int]) -> Iterator[Any]:
    """What can be read of a value: what is in containers, objects and functions, with keys and names.

    Args:
        seen: ids of what has been looked into, and is not again.
    """
    if isinstance(value, ATOMS):
        yield value
        return
    if isinstance(value, CONTAINERS):
        yield type(value)
    else:
        yield digest_of_array(value) if is_array(value) else value
    if id(value) in seen:
        return
    seen.add(id(value))
    for part in parts(value):
        yield from leaves(part, seen)


ATOMS = (*PLAIN, Tensor, type, types.ModuleType, types.BuiltinFunctionType)
"""What is compared as a whole: plain values by value, others by identity."""

CONTAINERS = (dict, list, tuple, set, frozenset, deque, types.MappingProxyType, types.MethodType, functools.partial)
"""What is compared by what is in it."""


def parts(value: Any) -> Iterator[Any]:
    """What is directly in a container, an object or a function."""
    if isinstance(value, (dict, types.MappingProxyType)):
        # Not by its own methods, which may make what is asked for.
        for key, item in list(dict.items(value) if isinstance(value, dict) else value.items()):
            yield key
            yield item
    elif isinstance(value, (set, frozenset)):
        # In an order that does not depend on addresses and on the process.
        yield from sorted(value, key=repr) if all(isinstance(own, PLAIN) for own in value) else list(value)
    elif isinstance(value, (list, tuple, deque)):
        yield from list(value)
    elif isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        yield from (value.func, value.args, value.keywords)
    elif isinstance(value, types.FunctionType):
        yield from (value.__code__, value.__defaults__, value.__kwdefaults__)
        yield from [cell.cell_contents for cell in value.__closure__ or () if cell_is_full(cell)]
    elif isinstance(value, CACHE):
        yield value.__wrapped__
        return
    if isinstance(value, nn.Module) or type(value).__module__.partition(".")[0] not in LIBRARIES:
        for name, item in instance_attributes(value).items():
            yield name
            yield item


def is_array(value: Any) -> bool:
    return isinstance(value, (bytearray, memoryview, array)) or (
        type(value).__module__ == "numpy" and hasattr(value, "tobytes")
    )


def digest_of_array(value: Any) -> str:
    """Equal for arrays, and numbers of numpy, of equal values."""
    content = bytes(value) if isinstance(value, bytearray) else value.tobytes()
    kind = [getattr(value, name, None) for name in ("dtype", "typecode", "shape")]
    return f"{type(value).__name__} {kind} {hashlib.blake2b(content, digest_size=16).hexdigest()}"


def changed_attributes(before: Attributes, after: Attributes) -> list[Place]:
    """Where they differ; what is not a plain value differs from any other object."""
    return [
        place
        for place in {**before, **after}
        if place not in before or place not in after or not are_same(before[place], after[place])
    ]


def are_same(before: list[Any], after: list[Any]) -> bool:
    return len(before) == len(after) and all(
        a is b or (isinstance(a, PLAIN) and type(a) is type(b) and is_equal(a, b)) for a, b in zip(before, after)
    )


def is_equal(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Size) and not all(isinstance(size, int) for size in (*a, *b)):
        # To compare a symbol would fix it.
        return False
    # A number that is none is the same number that is none.
    return bool(a == b or (a != a and b != b))


def assignment_line(module: nn.Module, name: str, owner: str = "self") -> str:
    """``model.py:41``, where a method of the module's class assigns the attribute; empty where none is found.

    Args:
        owner: whose attribute it is, as the method calls it: ``self.attn`` for that of a child.
    """
    word, own = re.escape(name), re.escape(owner)
    pattern = re.compile(
        rf"\b{own}\.{word}\b(\[.*\])?\s*([-+*/|&]|//|\*\*|@)?=(?!=)"
        # As of several at once: self.k, self.v = k, v
        rf"|^\s*([\w.]+\s*,\s*)*{own}\.{word}(\s*,\s*[\w.]+)*\s*=(?!=)"
        rf"|(setattr\({own},|{own}\.register_buffer\()\s*['\"]{word}['\"]"
    )
    for kind in type(module).__mro__:
        for method_name, method in vars(kind).items():
            if not inspect.isfunction(method) or method_name == "__init__" or kind is nn.Module:
                continue
            try:
                lines, first = inspect.getsourcelines(method)
            except OSError:
                continue
            for number, line in enumerate(lines, first):
                if pattern.search(line):
                    return f"{method.__code__.co_filename.rsplit('/', 1)[-1]}:{number}"
    return ""

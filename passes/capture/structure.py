"""What a capture bakes in of a model beside its weights: modules, hooks and attributes."""

from __future__ import annotations

import inspect
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from .arguments import PLAIN

Attributes = dict[tuple[str, str], list[Any]]
"""Path of a module and name of an attribute to its value, as leaves."""


def attributes(model: nn.Module, weight: Callable[[Tensor | None], Any] = lambda tensor: tensor) -> Attributes:
    """Every attribute of every module; of a config, what it holds; of parameters and buffers ``weight`` of them."""
    seen: set[int] = set()
    found: Attributes = {}
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers"):
                found |= {(path, own): [weight(tensor)] for own, tensor in value.items()}
                continue
            found[path, name] = list(leaves(value))
            if is_settings(value) and id(value) not in seen:
                seen.add(id(value))
                found[path, name] += leaves(vars(value))
    return found


def structure(model: nn.Module) -> Attributes:
    """What a captured step does not look up again when it runs: all but the values of parameters and buffers."""
    numbers: dict[int, int] = {}
    # Tied weights have one number.
    return attributes(
        model, lambda tensor: f"{numbers.setdefault(id(tensor), len(numbers))} {getattr(tensor, 'shape', 0)}"
    )


def leaves(value: Any) -> Iterator[Any]:
    """What is in nested containers, with the keys of dicts."""
    kind = type(value)
    if kind is dict or kind is OrderedDict:
        yield from value
        value = value.values()
    elif kind is not list and kind is not tuple:
        yield value
        return
    for item in value:
        yield from leaves(item)


def is_settings(value: Any) -> bool:
    """Whether the value is an object that is there for its attributes, such as a library's config."""
    return hasattr(value, "__dict__") and not callable(value) and not isinstance(value, Tensor)


def changed_attributes(before: Attributes, after: Attributes) -> list[tuple[str, str]]:
    """Path and name of those that differ; what is not a plain value differs from any other object."""
    return [
        place
        for place in {**before, **after}
        if place not in before or place not in after or not are_same(before[place], after[place])
    ]


def are_same(before: list[Any], after: list[Any]) -> bool:
    return len(before) == len(after) and all(
        a is b or (isinstance(a, PLAIN) and type(a) is type(b) and a == b) for a, b in zip(before, after)
    )


def assignment_line(module: nn.Module, name: str) -> str:
    """``model.py:41``, where a method of the module's class assigns the attribute; empty where none is found."""
    pattern = re.compile(rf"self\.{re.escape(name)}\b(\[.*\])?\s*([-+*/|&]|//|\*\*|@)?=(?!=)")
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

"""Tensors that tracing leaves behind in what it did not copy, taken out again."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor

from .copies import instance_attributes
from .structure import ATOMS, CACHE, parts
from .surroundings import Surroundings, space


@contextmanager
def taken_out(model: nn.Module, surroundings: Surroundings) -> Iterator[None]:
    """Put back what held real tensors before and holds traced ones after, in globals, classes and shared objects.

    Weights whose storage was moved or swapped come back too, as where a hook was about to offload them.
    """
    bindings = [(holder, name, space(holder)[name]) for holder, name in surroundings.names.values()]
    held = [(holder, contents(holder)) for holder in holders([model, *surroundings.values().values()])]
    weights = [(weight, weight.data) for weight in (*model.parameters(), *model.buffers())]
    try:
        yield
    finally:
        for holder, name, value in bindings:
            now = space(holder).get(name)
            if now is not value and holds_traced(now):
                space(holder).__setitem__(name, value) if isinstance(holder, dict) else setattr(holder, name, value)
        for holder, before in held:
            if isinstance(holder, CACHE):
                # What a cache of functools holds cannot be told one from another, and is made again when asked for.
                if any(map(holds_traced, gc.get_referents(holder))):
                    holder.cache_clear()
            elif any(holds_traced(part) for part in new_parts(before, contents(holder))):
                refill(holder, before)
        for weight, values in weights:
            if weight.device != values.device or weight.data_ptr() != values.data_ptr():
                weight.data = values


def holders(roots: list[Any]) -> Iterator[Any]:
    """Every container and object that is reached from the roots."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        if not isinstance(value, ATOMS) and id(value) not in seen:
            seen.add(id(value))
            yield value
            waiting += parts(value)


def classes_and_modules(model: nn.Module) -> set[Any]:
    """Classes and modules of Python that a model holds, and the classes of all that it holds."""
    found: set[Any] = set()
    for holder in holders([model]):
        found.add(type(holder))
        found.update(part for part in parts(holder) if isinstance(part, (type, ModuleType)))
    return found


def contents(holder: Any) -> Any:
    """What is directly in a container or an object, as a copy of it; None where nothing can be put back."""
    if isinstance(holder, dict):
        return dict(dict.items(holder))
    if isinstance(holder, (list, set, deque)):
        return list(holder)
    return instance_attributes(holder) or None


def new_parts(before: Any, now: Any) -> list[Any]:
    """What is in a container now and was not before."""
    if before is None or now is None:
        return []
    known = {id(part) for part in (before.values() if isinstance(before, dict) else before)}
    return [part for part in (now.values() if isinstance(now, dict) else now) if id(part) not in known]


def refill(holder: Any, before: Any) -> None:
    if isinstance(holder, dict):
        for key in [key for key in holder if key not in before]:
            dict.__delitem__(holder, key)
        for key, value in before.items():
            dict.__setitem__(holder, key, value)
    elif isinstance(holder, list):
        list.__setitem__(holder, slice(None), before)
    elif isinstance(holder, (set, deque)):
        holder.clear()
        holder.extend(before) if isinstance(holder, deque) else holder.update(before)
    else:
        for name in instance_attributes(holder):
            if name not in before:
                object.__delattr__(holder, name)
        for name, value in before.items():
            object.__setattr__(holder, name, value)


def holds_traced(value: Any) -> bool:
    if isinstance(value, Tensor):
        return is_traced(value)
    return any(isinstance(part, Tensor) and is_traced(part) for own in holders([value]) for part in parts(own))


def is_traced(value: Any) -> bool:
    return isinstance(value, (FakeTensor, FunctionalTensor))

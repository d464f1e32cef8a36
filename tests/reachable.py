"""Everything that can be reached from a model, and whether it was left as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from marche_fx.passes.capture.copies import LIBRARIES
from marche_fx.passes.capture.leftovers import is_traced
from marche_fx.passes.capture.structure import ATOMS, parts

PLAIN = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
"""Compared by value: many are made anew each time they are looked at."""


def reached(*roots: Any) -> Iterator[Any]:
    """Every container, object and function that is reached from the roots, and the classes of these objects."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        value = waiting.pop()
        is_class = isinstance(value, type)
        if id(value) not in seen and (is_somebodys(value) if is_class else not isinstance(value, ATOMS)):
            seen.add(id(value))
            yield value
            waiting += contents(value)
            waiting += value.__mro__ if is_class else [type(value)]


def is_somebodys(kind: type) -> bool:
    """Whether a class is neither Python's nor PyTorch's, so that a model may keep something on it."""
    root = kind.__module__.partition(".")[0]
    return root not in LIBRARIES and root not in sys.stdlib_module_names


def contents(holder: Any) -> list[Any]:
    """What is directly in a container, an object, a function or a class."""
    if isinstance(holder, type):
        return [part for name, value in vars(holder).items() for part in (name, value)]
    return list(parts(holder))


def tensors_in(*roots: Any) -> list[Tensor]:
    found = {id(part): part for holder in reached(*roots) for part in contents(holder) if isinstance(part, Tensor)}
    return list(found.values())


def stand_ins(*roots: Any) -> list[Tensor]:
    """Tensors without values that a trace has left."""
    return [own for own in tensors_in(*roots) if is_traced(own) or own.is_meta]


class Snapshot:
    """What is reached from a model: the objects themselves, what is in each, and the values of tensors."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.held = [(holder, contents(holder)) for holder in reached(model)]
        self.tensors = [(own, own.detach().clone(), describe(own)) for own in tensors_in(model)]
        self.hooks = hooks_of_all_modules()

    def changes(self) -> list[str]:
        """What is not as it was: what is reached by now must be in something that was there, and is looked into."""
        found = [
            f"{getattr(holder, '__qualname__', type(holder).__name__)} held {was}, and now {now}"
            for holder, before in self.held
            for was, now in [difference(before, contents(holder))]
            if was or now
        ]
        for tensor, values, described in self.tensors:
            if describe(tensor) != described or not torch.equal(tensor, values):
                found.append(f"a tensor {described} is {describe(tensor)} or has other values")
        found += [f"a tensor without values is left: {own.shape}" for own in stand_ins(self.model)]
        return found + ([] if hooks_of_all_modules() == self.hooks else ["hooks of all modules are left"])


def difference(before: list[Any], now: list[Any]) -> tuple[list[Any], list[Any]]:
    """What only the one and only the other list has, place by place, or at all where they are not of one length."""
    if len(before) != len(now):
        own, other = {id(part) for part in before}, {id(part) for part in now}
        gone, new = [part for part in before if id(part) not in other], [part for part in now if id(part) not in own]
        return (gone, new) if gone or new else (before, now)
    pairs = [(a, b) for a, b in zip(before, now) if not is_same(a, b)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def is_same(before: Any, now: Any) -> bool:
    return before is now or (isinstance(now, PLAIN) and type(before) is type(now) and before == now)


def describe(tensor: Tensor) -> tuple[Any, ...]:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.requires_grad, tensor.grad is None


def hooks_of_all_modules() -> list[int]:
    """How many hooks PyTorch calls for every module of the process, by kind."""
    return [
        len(hooks) for name, hooks in vars(torch_module).items() if name.startswith("_global_") and hooks is not None
    ]

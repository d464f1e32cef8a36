"""Attributes that a step sets for itself, such as a table for one length, and the states that a capture holds for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import PLAIN
from .left import Left
from .structure import Attributes, Place, leaves
from .surroundings import Surroundings

FEW = 16
"""So many states are remembered; a step that makes the same of more of them is called again to find out."""


class Tables:
    """What a captured step was seen to make its tables of, and that it makes the same of them.

    A step that finds a table for another length makes its own again: a capture that holds one holds for it. A step that
    would use what it finds is another step. In a dict further entries make no difference, as tables for other lengths.

    Args:
        places: what the step sets. written: what it sets in every call and never reads.
        surroundings: where to look for what is not the model's.
        before, after: what was there when the captured call began, and what it left, which the graph holds.
        constants: tensors whose values count, as a step made numbers of some.
        derived: where it leaves what it computes of its arguments in every call, which its graph does not.
        varying: of what is written, plain values that are others in each call. left: those that are the same in each.
    """

    def __init__(
        self,
        places: frozenset[Place] = frozenset(),
        surroundings: Surroundings | None = None,
        before: Attributes | None = None,
        after: Attributes | None = None,
        written: frozenset[Place] = frozenset(),
        constants: Iterable[Tensor] = (),
        derived: frozenset[Place] = frozenset(),
        varying: frozenset[Place] = frozenset(),
        left: Left | None = None,
    ) -> None:
        self.constants = [(own, version_of(own)) for own in constants]
        self.written = written
        self.derived = derived
        self.varying = varying
        self.left = left or {}
        self.places = places
        self.surroundings = surroundings or Surroundings()
        self.before = own_copy(before or {})
        self.after = own_copy(after or {})
        self.known: list[Attributes] = []
        """Other states of which a call was seen to make the same."""
        self.last: tuple[Any, Attributes] = ((), {})
        """Ids and versions of what was there the last time, and that itself."""

    def hold_for(self, model: nn.Module, call: Callable[[], Attributes]) -> bool:
        """Whether a call would make of what is there now what the captured one made.

        Args:
            call: calls the step on copies and returns what it left at these places; only where it must be tried.
        """
        if any(version_of(own) != version for own, version in self.constants):
            return False
        if not self.places:
            return True
        now = state_at(model, self.places, self.surroundings)
        identity = tuple((id(leaf), version_of(leaf)) for place in now for leaf in now[place])
        if identity == self.last[0]:
            return True
        if not self.is_own(now) and not any(holds_all_of(own, now) for own in self.known):
            if not holds_all_of(self.after, call()):
                return False
            self.known = [*self.known[-FEW:], own_copy(now)]
        self.last = identity, now
        return True

    def is_own(self, now: Attributes) -> bool:
        """Whether everything is as before the captured call, or as after it."""
        return all(
            are_alike(now.get(place, []), self.after.get(place, []))
            or are_alike(now.get(place, []), self.before.get(place, []))
            for place in {**self.before, **self.after}
        )


def state_at(model: nn.Module, places: Iterable[Place], surroundings: Surroundings) -> Attributes:
    """What is at some places, as leaves."""
    modules, values = dict(model.named_modules()), surroundings.values()
    found: Attributes = {}
    for path, name in sorted(places):
        own: dict[Any, Any] = {}
        if path in modules:
            own = {**modules[path]._parameters, **modules[path]._buffers, **vars(modules[path])}
        elif (path, name) in values:
            own = {name: values[path, name]}
        if not isinstance(own.get(name), dict):
            found[path, name] = list(leaves(own[name], set())) if name in own else []
        else:
            found |= {(path, f"{name}[{key!r}]"): list(leaves(item, set())) for key, item in list(own[name].items())}
    return found


def holds_all_of(known: Attributes, now: Attributes) -> bool:
    return all(place in now and are_alike(known[place], now[place]) for place in known)


def are_alike(before: list[Any], now: list[Any]) -> bool:
    """Whether values are the same and tensors equal; objects count by their types and by what they hold."""
    return len(before) == len(now) and all(map(are_equal, before, now))


def are_equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, Tensor):
        return a.dtype is b.dtype and a.device == b.device and a.shape == b.shape and torch.equal(a, b)
    return bool(a == b) if isinstance(a, PLAIN) else not callable(a)


def own_copy(state: Attributes) -> Attributes:
    """The same with tensors that nobody else writes."""
    return {place: [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in own] for place, own in state.items()}


def version_of(leaf: Any) -> int:
    return leaf._version if isinstance(leaf, Tensor) and not leaf.is_inference() else 0

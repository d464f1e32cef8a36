"""What this process compiled, or was given by another: modules that are the same computation share it.

There is no more of it than `MOST_KEPT`. What goes stays in the programs that run it, and is compiled again for others.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from ... import ops
from ..capture.arguments import PLAIN
from ..capture.digests import digest
from ..recent import unused_for_longest, use
from .conditions import Conditions
from .repeats import hashable
from .standalone import Code, Ragged

Key = str
"""Equal for modules that are the same computation, with the same dimensions of any size, and the same compiler."""

MOST_KEPT = 512
"""Compiled modules: those of some hundred captures."""


@dataclass(frozen=True)
class Stored:
    """Compiled code as it stands in a file."""

    key: Key
    conditions: Conditions
    data: bytes


@dataclass(eq=False)
class Kept:
    """Code for some kinds of calls; as it stands in a file until it is first asked for."""

    conditions: Conditions
    code: Code | Stored
    used: int = 0

    def loaded(self) -> Code:
        if isinstance(self.code, Stored):
            self.code = Code.loaded(self.code.data, self.conditions)
        return self.code


class KeptCode:
    """Compiled code by what it computes.

    Attributes:
        count: modules that were compiled in this process. dropped: how many are kept no more, in favour of others.
    """

    def __init__(self, most: int = MOST_KEPT) -> None:
        self.most = most
        self.known: dict[Key, list[Kept]] = {}
        self.count = self.dropped = 0
        self.lock = threading.Lock()

    def __iter__(self) -> Iterator[Kept]:
        return (own for alike in self.known.values() for own in alike)

    def find(self, key: Key | None, inputs: Sequence[Any]) -> Code | None:
        """Code that holds for ``inputs``."""
        alike = [] if key is None else self.known.get(key, [])
        found = next((own for own in alike if own.conditions.hold_for(inputs)), None)
        return None if found is None else use(found).loaded()

    def add(self, key: Key | None, code: Code) -> Code:
        if key is not None:
            self.put(key, code)
        return code

    def restore(self, stored: Sequence[Stored]) -> None:
        """Have what another process compiled, but for what there is."""
        for own in stored:
            if all(kept.conditions != own.conditions for kept in self.known.get(own.key, ())):
                self.put(own.key, own)

    def put(self, key: Key, code: Code | Stored) -> None:
        """Keep code, in place of what there is no room for."""
        with self.lock:
            known = {**self.known, key: [*self.known.get(key, ()), use(Kept(code.conditions, code))]}
            gone = unused_for_longest(self, len([*self]) + 1 - self.most)
            self.dropped += len(gone)
            # Another dictionary: a thread may be looking through this one.
            kept = {name: [own for own in alike if own not in gone] for name, alike in known.items()}
            self.known = {name: alike for name, alike in kept.items() if alike}

    def forget(self) -> None:
        """Compile everything anew."""
        self.known = {}


KEPT = KeptCode()


def key_of(module: fx.GraphModule, ragged: Sequence[Ragged], lengths: Sequence[tuple[int, int]] = ()) -> Key | None:
    """What a module computes, in the same words in every process; None where it calls a function of a user's."""
    numbers = {node: number for number, node in enumerate(module.graph.nodes)}
    lines = []
    for node in module.graph.nodes:
        target, leaves = name_of(node), pytree.tree_leaves((node.args, node.kwargs))
        if target is None or not all(isinstance(own, (fx.Node, *PLAIN)) for own in leaves):
            return None
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda own: f"%{numbers[own]}")
        lines.append(f"{node.op} {target} {hashable(args)} {hashable(kwargs)}")
    return digest(*lines, repr([*ragged]), repr(sorted(lengths)), *compiler())


def name_of(node: fx.Node) -> str | None:
    if node.op in ("placeholder", "output"):
        return ""
    if node.op in ("get_attr", "call_module"):
        # It holds more than the graph tells.
        return None
    if isinstance(node.target, (str, torch._ops.OpOverload)):
        return str(node.target)
    name = f"{node.target.__module__}.{getattr(node.target, '__qualname__', '')}"
    is_ours = node.target.__module__ in (ops.__name__, "_operator")
    return name if is_ours else None


def compiler() -> list[str]:
    """How the compiler is set up."""
    from torch._functorch import config as autograd
    from torch._inductor import config

    return [str(own.get_hash()) for own in (config, autograd)]

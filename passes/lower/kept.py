"""What this process compiled, or was given by another: modules that are the same computation share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from ... import ops
from ..capture.arguments import PLAIN
from ..capture.digests import digest
from .conditions import Conditions
from .repeats import hashable
from .standalone import Code, Ragged

Key = str
"""Equal for modules that are the same computation, with the same dimensions of any size, and the same compiler."""


@dataclass(frozen=True)
class Stored:
    """Compiled code as it stands in a file."""

    key: Key
    conditions: Conditions
    data: bytes


class KeptCode:
    """Compiled code by what it computes.

    Attributes:
        count: modules that were compiled in this process.
    """

    def __init__(self) -> None:
        self.known: dict[Key, list[Code]] = {}
        self.stored: dict[Key, list[Stored]] = {}
        self.count = 0

    def find(self, key: Key | None, inputs: Sequence[Any]) -> Code | None:
        """Code that holds for ``inputs``; what was stored is loaded when it is first asked for."""
        if key is None:
            return None
        found = next((own for own in self.known.get(key, ()) if own.conditions.hold_for(inputs)), None)
        if found is not None:
            return found
        for own in self.stored.get(key, ()):
            if own.conditions.hold_for(inputs):
                self.stored[key].remove(own)
                return self.add(key, Code.loaded(own.data, own.conditions))
        return None

    def add(self, key: Key | None, code: Code) -> Code:
        if key is not None:
            self.known.setdefault(key, []).append(code)
        return code

    def restore(self, stored: Sequence[Stored]) -> None:
        """Have what another process compiled."""
        for own in stored:
            held = self.stored.setdefault(own.key, [])
            if own not in held:
                held.append(own)

    def forget(self) -> None:
        """Compile everything anew."""
        self.known.clear()
        self.stored.clear()


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

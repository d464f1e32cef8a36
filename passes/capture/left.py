"""Plain values that a step leaves in attributes for others to read, as ``self.h, self.w = x.shape[2:]``."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from .arguments import PLAIN
from .sizes import SYMBOLIC, evaluated, is_symbolic
from .structure import Place, is_equal
from .watched import ABSENT

Left = dict[Place, Any]
"""Plain values, by the attribute in which they are left."""


@contextmanager
def noting_assignments(model: nn.Module) -> Iterator[set[Place]]:
    """Gives the attributes of the model's modules that are given a plain value, maybe the one that they have."""
    paths, found = {id(module): path for path, module in model.named_modules()}, set[Place]()
    assign = nn.Module.__setattr__

    def noting(module: nn.Module, name: str, value: Any) -> None:
        if id(module) in paths and is_plain(value):
            found.add((paths[id(module)], name))
        assign(module, name, value)

    # A value that was there before leaves no trace afterwards, so the assignment itself is noted.
    nn.Module.__setattr__ = noting  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        nn.Module.__setattr__ = assign  # type: ignore[method-assign]


def is_plain(value: Any) -> bool:
    """Whether it is a plain value, or tuples, lists and dicts of such."""
    if isinstance(value, dict):
        return all(map(is_plain, [*value, *value.values()]))
    return all(map(is_plain, value)) if isinstance(value, (tuple, list)) else isinstance(value, PLAIN)


def is_left_again(traced: Any, rehearsed: Any) -> bool:
    """Whether a trace left what the call before it did, so that every call of this kind does."""
    if isinstance(traced, dict) and isinstance(rehearsed, dict):
        return traced.keys() == rehearsed.keys() and all(is_left_again(traced[key], rehearsed[key]) for key in traced)
    if isinstance(traced, (tuple, list)) and isinstance(rehearsed, (tuple, list)):
        return len(traced) == len(rehearsed) and all(map(is_left_again, traced, rehearsed))
    if isinstance(traced, SYMBOLIC) and is_symbolic(traced):
        # Loads sympy.
        from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

        # A size of the arguments, and not a value that somebody asked a tensor for.
        return not free_unbacked_symbols(traced)
    known = evaluated(traced, {})
    return type(known) is type(rehearsed) and is_equal(known, rehearsed)


def plain_values(model: nn.Module, places: Collection[Place]) -> Left:
    """Those that there are in attributes of a model's modules."""
    modules = dict(model.named_modules()) if places else {}
    found = {(path, name): vars(modules[path]).get(name, ABSENT) for path, name in places if path in modules}
    return {place: value for place, value in found.items() if is_plain(value)}


def leave(model: nn.Module, left: Mapping[Place, Any]) -> None:
    """Put them there, as a call of the original does."""
    for (path, name), value in left.items():
        vars(model.get_submodule(path))[name] = copy.deepcopy(value)

"""Arguments of operators: values, and lists of them. PyTorch's own walk knows more kinds, and takes a loop's time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """``tree`` with what a function makes of each leaf in place of it."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return kind([mapped(function, own) for own in tree])
    if kind is dict:
        return {name: mapped(function, own) for name, own in tree.items()}
    return function(tree)


def leaves_of(tree: Any) -> list[Any]:
    """The leaves, in the order in which `mapped` meets them."""
    found: list[Any] = []
    key_of(tree, object, found)
    return found


def key_of(tree: Any, apart: type | tuple[type, ...] = (), found: list[Any] | None = None) -> Any:
    """Equal for trees of the same form and leaves: 1 and 1.0 are not.

    Args:
        apart: leaves of these types are all the same to it, and are taken into ``found`` in their order.
    """
    kind = type(tree)
    if kind is tuple or kind is list:
        return kind, *[key_of(own, apart, found) for own in tree]
    if kind is dict:
        return kind, *[(name, key_of(own, apart, found)) for name, own in tree.items()]
    if found is not None and isinstance(tree, apart):
        found.append(tree)
        return None
    return kind, tree

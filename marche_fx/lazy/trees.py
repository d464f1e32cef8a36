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
    mapped(found.append, tree)
    return found


def key_of(tree: Any) -> Any:
    """Equal for trees of the same form and leaves: 1 and 1.0 are not."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return kind, *(key_of(own) for own in tree)
    if kind is dict:
        return kind, *((name, key_of(own)) for name, own in tree.items())
    return kind, tree

"""What is computed from what."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import fx


def descendants(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """``nodes`` and everything computed from them."""
    return closure(nodes, lambda node: node.users)


def ancestors(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """``nodes`` and everything they are computed from."""
    return closure(nodes, lambda node: node.all_input_nodes)


def closure(start: Iterable[fx.Node], following: Callable[[fx.Node], Iterable[fx.Node]]) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    pending = list(start)
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending.extend(following(node))
    return seen

"""Cut a graph into segments, of which those that repeat the same computation are of one kind."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from ..graph.opaque import OPAQUE

LEAST = 6
"""Fewer operators are no layer."""


@dataclass(frozen=True)
class Segment:
    """Operators in a row.

    Attributes:
        inputs: what they read from outside, in the order of their first use.
        outputs: those that are read outside, or whose counterpart in a segment of the same kind is.
        kind: equal for segments that are the same computation, on other inputs.
    """

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]
    kind: int


def find_segments(graph: fx.Graph) -> tuple[Segment, ...]:
    """All operators of ``graph`` in running order, with as much as can be in segments that repeat.

    Found by comparing graphs: operators, constants, and how values flow from one to the other.

    Before:  a = norm(x, w0);  b = linear(a, v0);  c = norm(b, w1);  d = linear(c, v1);  e = exp(d)
    After:   kind 0: (x, w0, v0) -> b;  kind 0: (b, w1, v1) -> d;  kind 1: (d) -> e
    """
    kinds: dict[Any, int] = {}
    segments: list[Segment] = []
    for run in between_children(graph):
        for repeat in find_repeats(run):
            read = read_outside(repeat.blocks)
            for block in repeat.blocks:
                kind = kinds.setdefault((signature(block), tuple(read)), len(kinds))
                outputs = tuple(block[number] for number in read)
                segments.append(Segment(tuple(block), tuple(inputs_of(block)), outputs, kind))
    return tuple(segments)


def between_children(graph: fx.Graph) -> Iterator[list[fx.Node]]:
    """The operators of ``graph`` in running order, cut where it calls a child as it is, which no compiler sees."""
    nodes = [node for node in graph.nodes if node.op == "call_function"]
    for _, run in itertools.groupby(nodes, is_of_child):
        yield list(run)


def is_of_child(node: fx.Node) -> bool:
    """Whether it calls a child as it is, or is one of what that gives."""
    return OPAQUE in (node.target, *(own.target for own in node.all_input_nodes if node.target is operator.getitem))


@dataclass(frozen=True)
class Repeat:
    """Blocks of equally many operators that are the same computation; one block where nothing repeats."""

    blocks: tuple[Sequence[fx.Node], ...]


Known = dict[tuple[fx.Node, fx.Node], list[Repeat]]
"""What was found between a first and a last node."""


def find_repeats(nodes: Sequence[fx.Node], known: Known | None = None) -> list[Repeat]:
    """``nodes`` in order; the repetition that saves most first, then what is before and after it in the same way."""
    if not nodes:
        return []
    known = {} if known is None else known
    ends = nodes[0], nodes[-1]
    if ends not in known:
        found = []
        for start, period, count in best_repeats(nodes):
            end = start + period * count
            blocks = tuple(nodes[at : at + period] for at in range(start, end, period))
            around = (find_repeats(own, known) for own in (nodes[:start], nodes[end:]))
            found.append([*next(around), Repeat(blocks), *next(around)])
        known[ends] = min(found, key=size_once, default=[Repeat((nodes,))])
    return known[ends]


def size_once(repeats: Sequence[Repeat]) -> int:
    """Operators, those of blocks that repeat counted once."""
    return sum(len(repeat.blocks[0]) for repeat in repeats)


def best_repeats(nodes: Sequence[fx.Node]) -> list[tuple[int, int, int]]:
    """Start, period and count of the repetition that saves most operators, cut where fewest values cross.

    Several where so many cross in several places, of which each leaves other operators before and after it.
    """
    labels = [label(node) for node in nodes]
    found: list[tuple[int, int, int]] = []
    for period in range(LEAST, len(nodes) // 2 + 1):
        start = 0
        while start + period < len(nodes):
            length = 0
            while start + period + length < len(nodes) and labels[start + length] == labels[start + period + length]:
                length += 1
            if length >= period:
                found.append((length // period * period, start, period))
            start += length + 1
    # The shortest period of those that save the same.
    for saved, start, period in sorted(found, key=lambda own: (-own[0], own[2])):
        count = saved // period + 1
        cuts = [
            (crossing(nodes, at, period, count), at)
            for at in range(start, min(start + period, len(nodes) - period * count + 1))
            if same_computation(nodes, at, period, count)
        ]
        if cuts:
            fewest = min(crossed for crossed, _ in cuts)
            return [(at, period, count) for crossed, at in cuts if crossed == fewest]
    return []


def same_computation(nodes: Sequence[fx.Node], start: int, period: int, count: int) -> bool:
    first, *others = (signature(nodes[at : at + period]) for at in range(start, start + period * count, period))
    return all(other == first for other in others)


def crossing(nodes: Sequence[fx.Node], start: int, period: int, count: int) -> int:
    """How many values the blocks give to what follows them."""
    return len(read_outside([nodes[at : at + period] for at in range(start, start + period * count, period)]))


def read_outside(blocks: Sequence[Sequence[fx.Node]]) -> list[int]:
    """Numbers of the operators that are read outside of any of the blocks."""
    found = set()
    for block in blocks:
        inside = set(block)
        found |= {number for number, node in enumerate(block) if any(user not in inside for user in node.users)}
    return sorted(found)


def inputs_of(block: Sequence[fx.Node]) -> dict[fx.Node, int]:
    """What a block reads from outside, numbered in the order of first use."""
    inside = set(block)
    found: dict[fx.Node, int] = {}
    for node in block:
        for operand in node.all_input_nodes:
            if operand not in inside:
                found.setdefault(operand, len(found))
    return found


def signature(block: Sequence[fx.Node]) -> tuple[Any, ...]:
    """Equal for blocks that are the same computation on inputs of the same kinds."""
    names: Mapping[fx.Node, tuple[str, int]] = {
        **{node: ("input", number) for node, number in inputs_of(block).items()},
        **{node: ("own", number) for number, node in enumerate(block)},
    }
    inputs = tuple(tensor_kind(node) for node in inputs_of(block))
    return inputs, tuple(label(node, names.__getitem__) for node in block)


def label(node: fx.Node, name: Callable[[fx.Node], Any] = lambda _: "value") -> tuple[Any, ...]:
    """An operator and its constants, with ``name`` of each value that it reads."""
    return node.target, hashable(fx.map_arg(node.args, name)), hashable(fx.map_arg(node.kwargs, name))


def hashable(arguments: Any) -> Any:
    if isinstance(arguments, (list, tuple)):
        return tuple(hashable(own) for own in arguments)
    if isinstance(arguments, dict):
        return tuple(sorted((name, hashable(own)) for name, own in arguments.items()))
    # 1, 1.0 and True are equal and yet other constants.
    return type(arguments), arguments


def tensor_kind(node: fx.Node) -> Any:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    return tuple(map(str, value.shape)), value.dtype, value.device, tuple(map(str, value.stride()))

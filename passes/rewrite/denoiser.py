"""Cut a denoiser into parts by what they depend on, each for any number of rows."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from ..analysis.denoiser import Denoiser
from ..capture.any_rows import Size
from ..graph.reach import ancestors
from .cut import Part, cut_part

RAGGED = "ragged"
"""Where a node's ``meta`` says which dimensions of its value go with the rows, and how."""


@dataclass(frozen=True)
class DenoiserParts:
    """A denoiser in the order in which its parts run.

    Attributes:
        count: the input of those parts that need the number of rows they are called with.
        held: values of residual branches that may be held from one call to the next.
        frontier: what the exit reads of the network.
        still: of the condition. timed: of the time. slow: of both, what every call reads. slow_in_branches: of both,
            what is read where branches are computed alone.
        entry: of the noisy value, up to two equal halves of rows; empty where there are none.
        network: from these, or from the noisy value, row by row to the frontier and the held values.
        shortcut: from these and from the held values to the frontier.
        exit: to the results.
    """

    count: fx.Node
    held: tuple[fx.Node, ...]
    frontier: tuple[fx.Node, ...]
    still: Part
    timed: Part
    slow: Part
    slow_in_branches: Part
    entry: Part
    network: Part
    shortcut: Part
    exit: Part

    def named(self) -> dict[str, Part]:
        found = {own.name: getattr(self, own.name) for own in dataclasses.fields(self)}
        return {name: own for name, own in found.items() if isinstance(own, Part)}


def cut_denoiser(found: Denoiser, held: Sequence[fx.Node] = ()) -> DenoiserParts:
    """Cut the graph of a denoiser, in which numbers of rows become arithmetic on an input; the graph is changed.

    Args:
        held: values of the network, which the shortcut takes as they are.

    Before:  y = linear(t) + linear(c);  x2 = cat([x1, x1]);  out = linear(x2 * linear(y));  a, b = out[:3], out[3:]
    After:   timed: u = linear(t)       still: w = linear(c)     slow: kept = linear(u + w)
             entry: x2 = cat([x1, x1])  network: out = linear(x2 * kept)
             exit: half = rows // 2;  a, b = out[:half], out[half:]

    With a held value:
    Before:  b = linear(norm(x2) * kept);  y = x2 + b;  out = linear(y)
    After:   network: b = linear(norm(x2) * kept);  y = x2 + b;  out = linear(y)
             shortcut, given b:                     y = x2 + b;  out = linear(y)
    """
    module = found.rows.capture.graph_module
    graph = module.graph
    for node, sizes in found.rows.sizes.items():
        node.meta[RAGGED] = dict(sizes)
    count, arithmetic = count_rows(graph, found.rows.numbers)
    (output,) = graph.find_nodes(op="output")
    results = output.all_input_nodes
    noisy, network = set(found.noisy), set(found.network)
    entry = noisy & ancestors([found.joined]) if found.joined is not None else set()
    free = {node for node in found.noisy if node in network and not noisy_operands(node, found)}
    leaving = (noisy - network - entry) | free

    def part(nodes: Collection[fx.Node], wanted: Sequence[fx.Node], results_of: Any = None) -> Part:
        inside = {*nodes, *arithmetic}
        needed = reached(wanted, inside)
        return cut_part(module, [node for node in graph.nodes if node in needed], wanted, results_of=results_of)

    def read_outside(nodes: Iterable[fx.Node]) -> list[fx.Node]:
        own = set(nodes)
        return [node for node in nodes if any(user not in own for user in node.users)]

    reading_exit = {*results, *(own for node in leaving for own in node.all_input_nodes)}
    frontier = [node for node in found.network if node not in free and node in reading_exit]
    entering = [node for node in graph.nodes if node in entry and (node is found.joined or node in reading_exit)]
    enter, leave = part(entry, entering), part(leaving, results, output.args[0])
    shortcut = part(network - {*held}, frontier)
    read_always = {*enter.inputs, *shortcut.inputs, *leave.inputs}
    return DenoiserParts(
        count,
        tuple(held),
        tuple(frontier),
        part(found.still, read_outside(found.still)),
        # What is made of weights alone for each row, as zeros are, is made for as many rows as there are times.
        part([*found.blank, *found.timed], read_outside(found.timed)),
        part(found.slow, [node for node in found.kept if node in read_always]),
        part(found.slow, [node for node in found.kept if node not in read_always]),
        enter,
        part(network, [*frontier, *(node for node in held if node not in frontier)]),
        shortcut,
        leave,
    )


def noisy_operands(node: fx.Node, found: Denoiser) -> bool:
    """Whether an operator depends on the noisy value."""
    return not ancestors([node]).isdisjoint(found.inputs("noisy"))


def reached(wanted: Iterable[fx.Node], inside: Collection[fx.Node]) -> set[fx.Node]:
    """Those of ``inside`` that ``wanted`` are computed from by way of nothing else."""
    seen: set[fx.Node] = set()
    pending = [node for node in wanted if node in inside]
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending.extend(own for own in node.all_input_nodes if own in inside)
    return seen


def count_rows(graph: fx.Graph, numbers: dict[tuple[fx.Node, int], Size]) -> tuple[fx.Node, set[fx.Node]]:
    """Put arithmetic on a new input in place of numbers that go with the rows: the input, and the arithmetic.

    Before:  half = slice(x, 0, 0, 3)
    After:   floordiv = rows // 2;  half = slice(x, 0, 0, floordiv)
    """
    first = next(node for node in graph.nodes if node.op != "placeholder")
    arithmetic: dict[Size, list[fx.Node]] = {}
    with graph.inserting_before(first):
        count = graph.placeholder("rows")
        for size in numbers.values():
            if size not in arithmetic:
                arithmetic[size] = made_of(graph, count, size)
    for node in {node for node, _ in numbers}:
        leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
        for number in range(len(leaves)):
            if (node, number) in numbers:
                leaves[number] = [count, *arithmetic[numbers[node, number]]][-1]
        args, kwargs = map_aggregate(pytree.tree_unflatten(leaves, spec), lambda own: own)
        node.args, node.kwargs = args, dict(kwargs)
    return count, {node for own in arithmetic.values() for node in own}


def made_of(graph: fx.Graph, count: fx.Node, size: Size) -> list[fx.Node]:
    """The operators from the number of rows to a size, none where it is that number."""
    found = [count]
    if size.factor.numerator != 1:
        found.append(graph.call_function(operator.mul, (found[-1], size.factor.numerator)))
    if size.factor.denominator != 1:
        found.append(graph.call_function(operator.floordiv, (found[-1], size.factor.denominator)))
    if size.offset:
        found.append(graph.call_function(operator.add, (found[-1], size.offset)))
    return found[1:]

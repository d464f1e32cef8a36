"""Compiled code for many lengths: programs of a step whose segments differ in nothing but sizes share it."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx
from torch.fx.node import map_aggregate
from torch.utils import _pytree as pytree

from .compiled import Compiled
from .repeats import hashable
from .standalone import Ragged


@dataclass(frozen=True)
class Module:
    """Operators in a row, to be compiled.

    Attributes:
        ragged: dimensions of its inputs that are of any size in a program too.
    """

    module: fx.GraphModule
    ragged: tuple[Ragged, ...]

    @property
    def graph(self) -> fx.Graph:
        return self.module.graph


class SharedCode:
    """What was compiled for the programs of one step."""

    def __init__(self) -> None:
        self.known: list[Lowered] = []

    def compiled(self, modules: Sequence[Module], samples: int) -> tuple[Compiled, ...]:
        """Compiled code for the modules of a program: that of other lengths, if these differ in sizes only.

        A second length has all of its modules compiled for any length, or none: a tensor that is of any size for one
        must not be of one size for another. Other numbers of samples have code of their own: every tensor has that
        size, also those of which the graph does not tell any.
        """
        alike = [own for own in self.known if own.samples == samples]
        for own in alike:
            if own.holds_for(modules):
                return own.code
        for own in alike:
            found = own.general(modules)
            if found is not None:
                self.known.append(found)
                return found.code
        code = tuple(Compiled(own.module, own.ragged) for own in modules)
        self.known.append(Lowered(samples, tuple(modules), tuple(General() for _ in modules), code))
        return code

    def keep(self, programs: Iterable[fx.GraphModule]) -> None:
        """Forget what none of these programs calls."""
        called = {node.target for own in programs for node in own.graph.nodes if isinstance(node.target, Compiled)}
        self.known = [own for own in self.known if called.intersection(own.code)]


@dataclass(frozen=True)
class Source:
    """A size ``factor * inputs[number].shape[dim] + offset``."""

    number: int
    dim: int
    factor: int = 1
    offset: int = 0

    def of(self, inputs: Sequence[fx.Node]) -> int:
        return self.factor * int(inputs[self.number].meta["val"].shape[self.dim]) + self.offset


@dataclass(frozen=True)
class General:
    """What two modules have in common that are the same but for sizes.

    Attributes:
        dims: dimensions of inputs whose sizes differ, ``(input, dimension)``. sources: what stands for a number that
            differs, by the number of its operator and its own among the operator's arguments.
    """

    dims: tuple[tuple[int, int], ...] = ()
    sources: dict[tuple[int, int], Source] = field(default_factory=dict)

    def holds_for(self, first: Module, other: Module) -> bool:
        """Whether ``first`` with other sizes is ``other``."""
        differing = differences(first, other)
        if differing is None:
            return False
        dims, numbers = differing
        if not {*dims} <= {*self.dims} or not numbers.keys() <= self.sources.keys():
            return False
        inputs, leaves = other.graph.find_nodes(op="placeholder"), numbers_of(other.graph)
        return all(source.of(inputs) == leaves[place] for place, source in self.sources.items())


@dataclass(frozen=True)
class Lowered:
    """Modules of a program, and the code that is theirs and that of programs which differ from it in sizes alone."""

    samples: int
    modules: tuple[Module, ...]
    generals: tuple[General, ...]
    code: tuple[Compiled, ...]

    def holds_for(self, modules: Sequence[Module]) -> bool:
        triples = zip(self.generals, self.modules, modules)
        return len(modules) == len(self.modules) and all(own.holds_for(first, other) for own, first, other in triples)

    def general(self, modules: Sequence[Module]) -> Lowered | None:
        """The same for any sizes in which these modules differ from its own; None where they differ otherwise."""
        if len(modules) != len(self.modules):
            return None
        generals: list[General] = []
        for first, other in zip(self.modules, modules):
            found = generalised(first, other)
            if found is None:
                return None
            generals.append(found)
        code = tuple(
            Compiled(general_module(first.module, own), first.ragged, own.dims)
            for first, own in zip(self.modules, generals)
        )
        return Lowered(self.samples, self.modules, tuple(generals), code)


Numbers = dict[tuple[int, int], tuple[int, int]]


def differences(first: Module, second: Module) -> tuple[list[tuple[int, int]], Numbers] | None:
    """Dimensions of inputs, and numbers among arguments, that differ; None where anything else does."""
    own, other = first.graph, second.graph
    if first.ragged != second.ragged:
        return None
    ragged = {(own.number, own.dim) for own in first.ragged}
    if len(own.nodes) != len(other.nodes):
        return None
    dims: list[tuple[int, int]] = []
    numbers: Numbers = {}
    twins: dict[fx.Node, fx.Node] = {}
    for place, (node, twin) in enumerate(zip(own.nodes, other.nodes)):
        twins[node] = twin
        if node.op != twin.op or (node.op == "call_function" and node.target is not twin.target):
            return None
        if node.op == "placeholder":
            changed = changed_dims(node.meta.get("val"), twin.meta.get("val"))
            if changed is None:
                return None
            # A dimension of any size was captured with that of all tokens.
            dims += [(place, dim) for dim in changed if (place, dim) not in ragged]
            continue
        (left, left_spec), (right, right_spec) = (
            pytree.tree_flatten((each.args, each.kwargs)) for each in (node, twin)
        )
        if left_spec != right_spec:
            return None
        for number, (a, b) in enumerate(zip(left, right)):
            if isinstance(a, fx.Node):
                if twins.get(a) is not b:
                    return None
            elif hashable(a) != hashable(b):
                if type(a) is not int or type(b) is not int:
                    return None
                numbers[place, number] = a, b
    return dims, numbers


def changed_dims(own: Any, other: Any) -> list[int] | None:
    if not isinstance(own, Tensor) or not isinstance(other, Tensor):
        return [] if hashable(own) == hashable(other) else None
    if (own.dtype, own.device, own.ndim) != (other.dtype, other.device, other.ndim):
        return None
    pairs = list(zip(own.shape, other.shape))
    changed = [dim for dim, (a, b) in enumerate(pairs) if a != b]
    # A size of one is broadcast.
    return None if any(1 in pairs[dim] for dim in changed) else changed


def numbers_of(graph: fx.Graph) -> dict[tuple[int, int], Any]:
    return {
        (place, number): leaf
        for place, node in enumerate(graph.nodes)
        for number, leaf in enumerate(pytree.tree_leaves((node.args, node.kwargs)))
    }


def generalised(first: Module, second: Module) -> General | None:
    """What two modules have in common; None where a difference is no size of an input, a multiple of it or near it."""
    differing = differences(first, second)
    if differing is None:
        return None
    dims, numbers = differing
    pairs = list(zip(*(own.graph.find_nodes(op="placeholder") for own in (first, second))))
    sizes = {(number, dim): tuple(int(own.meta["val"].shape[dim]) for own in pairs[number]) for number, dim in dims}
    sources = {}
    for place, (a, b) in numbers.items():
        source = source_of(a, b, sizes)
        if source is None:
            return None
        sources[place] = source
    return General(tuple(dims), sources)


def source_of(a: int, b: int, sizes: dict[tuple[int, int], tuple[int, ...]]) -> Source | None:
    found = [
        Source(number, dim, factor, offset)
        for (number, dim), (before, now) in sizes.items()
        for factor, offset in ((a // before, 0), (1, a - before))
        if factor > 0 and (factor * before + offset, factor * now + offset) == (a, b)
    ]
    return min(found, key=lambda own: (abs(own.offset), own.factor), default=None)


def general_module(module: fx.GraphModule, general: General) -> fx.GraphModule:
    """``module`` with sizes of its inputs in place of the numbers that stand for them.

    Before:  y = expand(k, [2, 8, 48, 32])
    After:   size = k.size(2);  y = expand(k, [2, 8, size, 32])
    """
    graph = fx.Graph()
    values: dict[fx.Node, fx.Node] = {}
    sizes: dict[Source, fx.Node] = {}
    inputs = [values.setdefault(node, graph.node_copy(node)) for node in module.graph.find_nodes(op="placeholder")]
    for place, node in enumerate(module.graph.nodes):
        if node.op == "placeholder":
            continue
        for own in {source for (of, _), source in general.sources.items() if of == place} - sizes.keys():
            size: Any = graph.call_method("size", (inputs[own.number], own.dim))
            size = size if own.factor == 1 else graph.call_function(operator.mul, (size, own.factor))
            sizes[own] = size if own.offset == 0 else graph.call_function(operator.add, (size, own.offset))
        leaves, spec = pytree.tree_flatten((node.args, node.kwargs))
        found = {number: sizes[own] for (of, number), own in general.sources.items() if of == place}
        leaves = [found.get(number, leaf) for number, leaf in enumerate(leaves)]
        args, kwargs = map_aggregate(
            pytree.tree_unflatten(leaves, spec),
            lambda leaf: values[leaf] if isinstance(leaf, fx.Node) and leaf in values else leaf,
        )
        values[node] = graph.create_node(node.op, node.target, args, kwargs, node.name)
    return fx.GraphModule({}, graph)

"""One capture of a method that works row by row, for any number of rows: traced for two numbers, and compared."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from ...errors import CaptureError
from ..graph.operands import is_tensor
from ..graph.source import describe
from .capture import capture
from .captured import Capture
from .structure import is_equal

TRACED = 6, 10
"""Rows of the two traces: even, for methods that take rows for two halves, and few."""


@dataclass(frozen=True)
class Size:
    """A number that depends on the rows R: ``factor * R + offset``."""

    factor: Fraction
    offset: int

    def of(self, rows: int) -> int:
        return int(self.factor * rows) + self.offset


@dataclass(frozen=True)
class AnyRows:
    """A captured method with what in it depends on how many rows R it is called with.

    Attributes:
        capture: the trace of ``rows`` rows.
        sizes: by value its dimensions that depend on R, with how. numbers: the same of arguments of operators that are
            plain numbers, by operator and number among its arguments.
    """

    capture: Capture
    rows: int
    sizes: dict[fx.Node, dict[int, Size]]
    numbers: dict[tuple[fx.Node, int], Size]

    @property
    def multiple(self) -> int:
        """It holds for multiples of so many rows."""
        found = [*self.numbers.values(), *(size for own in self.sizes.values() for size in own.values())]
        return max((own.factor.denominator for own in found), default=1)

    def has_rows(self, node: fx.Node) -> bool:
        return bool(self.sizes.get(node))

    def is_of_rows(self, node: fx.Node) -> bool:
        """Whether a value is ``[R, ..]``: a row each, in its first dimension and in no other."""
        return self.sizes.get(node) == {0: Size(Fraction(1), 0)}

    def copied(self) -> AnyRows:
        """The same with a graph of its own."""
        graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
        graph.output(graph.graph_copy(self.capture.graph_module.graph, copies))
        own = self.capture
        capture = dataclasses.replace(
            own,
            graph_module=fx.GraphModule(own.graph_module, graph),
            weights={copies[node]: path for node, path in own.weights.items()},
            constants={copies[node]: tensor for node, tensor in own.constants.items()},
            inputs=tuple(
                given if given.node is None else dataclasses.replace(given, node=copies[given.node])
                for given in own.inputs
            ),
        )
        sizes = {copies[node]: found for node, found in self.sizes.items() if node in copies}
        numbers = {(copies[node], number): size for (node, number), size in self.numbers.items() if node in copies}
        return AnyRows(capture, self.rows, sizes, numbers)


def capture_any_rows(
    model: nn.Module, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], *, rows: int
) -> AnyRows:
    """Capture ``model.method`` for any number of rows; these arguments have ``rows``, in their first dimension.

    A trace with a symbol in place of the number would not do: Python's ``len(x)``, by which heads take their rows for
    two halves, asks for a number. Two traces that differ in sizes alone say what each size is.

    Before:  half = slice(x [6, 4], 0, 0, 3)          half = slice(x [10, 4], 0, 0, 5)
    After:   half = slice(x [R, 4], 0, 0, R / 2)

    Raises:
        CaptureError, UnsupportedModelError: as `capture` does; or the traces differ in more than sizes.
    """
    name = f"{type(model).__name__}.{method}"
    first, second = (capture(model, method, *with_rows((args, kwargs), rows, count)) for count in TRACED)
    for holds, does in (
        (first.branches is None, "branches on values of its arguments"),
        (first.writes is None, "writes into its arguments"),
        (not first.draws, "draws random numbers"),
        (not first.tables.places, "keeps attributes of one call for the next"),
    ):
        if not holds:
            raise CaptureError(f"{name} {does}, so one graph does not hold for all calls. Move that into its loop.")
    for what, told in (("in_spec", "how its arguments come"), ("out_spec", "how its results come")):
        if getattr(first, what) != getattr(second, what):
            raise other_path(name, told)
    return compared(first, second, name)


def with_rows(call: Any, rows: int, count: int) -> Any:
    """The same arguments with ``count`` rows, which are theirs again and again."""

    def resized(leaf: Tensor) -> Tensor:
        if not leaf.ndim or len(leaf) != rows:
            return leaf
        return leaf.detach()[torch.arange(count, device=leaf.device) % rows]

    return pytree.tree_map_only(Tensor, resized, call)


def other_path(name: str, where: str) -> CaptureError:
    return CaptureError(
        f"{name} computes something else for another number of rows, first {where}, in traces of {TRACED[0]} and "
        f"{TRACED[1]} rows. Let it do the same for any number; and a tensor whose first dimension is as long as there "
        "are rows is taken for one of rows."
    )


def compared(first: Capture, second: Capture, name: str) -> AnyRows:
    """What the sizes of the first capture are, by those of the second.

    Raises:
        CaptureError: they differ in more than sizes that go with the rows.
    """
    own, other = first.graph_module.graph, second.graph_module.graph
    sizes: dict[fx.Node, dict[int, Size]] = {}
    numbers: dict[tuple[fx.Node, int], Size] = {}
    twins: dict[fx.Node, fx.Node] = {}
    for node, twin in zip(own.nodes, other.nodes):
        twins[node] = twin
        found = argument_sizes(node, twin, twins) if same_operator(node, twin, first, second) else None
        shapes = dimension_sizes(node, twin)
        if found is None or shapes is None:
            raise other_path(name, f"at {describe(node)}")
        numbers |= {(node, number): size for number, size in found.items()}
        if shapes:
            sizes[node] = shapes
    return AnyRows(first, TRACED[0], sizes, numbers)


def same_operator(node: fx.Node, twin: fx.Node, first: Capture, second: Capture) -> bool:
    if node.op != twin.op or (node.op == "call_function" and node.target is not twin.target):
        return False
    constant, its = first.constants.get(node), second.constants.get(twin)
    return first.weights.get(node) == second.weights.get(twin) and (
        constant is its or (constant is not None and its is not None and torch.equal(constant, its))
    )


def argument_sizes(node: fx.Node, twin: fx.Node, twins: dict[fx.Node, fx.Node]) -> dict[int, Size] | None:
    """Which of an operator's arguments go with the rows, and how; None where they differ otherwise."""
    (left, left_spec), (right, right_spec) = (pytree.tree_flatten((own.args, own.kwargs)) for own in (node, twin))
    if left_spec != right_spec:
        return None
    found: dict[int, Size] = {}
    for number, (a, b) in enumerate(zip(left, right)):
        if isinstance(a, fx.Node):
            if twins.get(a) is not b:
                return None
        elif type(a) is int and type(b) is int and a != b:
            size = size_of(a, b)
            if size is None:
                return None
            found[number] = size
        elif type(a) is not type(b) or not is_equal(a, b):
            return None
    return found


def dimension_sizes(node: fx.Node, twin: fx.Node) -> dict[int, Size] | None:
    if not is_tensor(node):
        # Parts of an operator with several values are looked at one by one.
        return {}
    own, other = node.meta["val"], twin.meta["val"]
    if (own.ndim, own.dtype, own.device) != (other.ndim, other.dtype, other.device):
        return None
    found: dict[int, Size] = {}
    for dim, (a, b) in enumerate(zip(own.shape, other.shape)):
        size = size_of(a, b)
        if size is None:
            return None
        if a != b:
            found[dim] = size
    return found


def size_of(first: int, second: int) -> Size | None:
    """What is ``first`` in a trace of `TRACED[0]` rows and ``second`` in the other; halves are the finest."""
    factor = Fraction(second - first, TRACED[1] - TRACED[0])
    offset = first - factor * TRACED[0]
    return Size(factor, int(offset)) if factor.denominator <= 2 and offset.denominator == 1 else None

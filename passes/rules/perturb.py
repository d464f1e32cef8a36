"""Check a rule against its operator: change one row and look at what moves; take some rows and look at what is left."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._library.custom_ops import CustomOpDef
from torch._ops import OpOverload, OpOverloadPacket
from torch.utils import _pytree as pytree

from ...checks import check_flag, check_kind, check_sequence
from ...errors import ArgumentError, RuleError
from ..graph.operands import Place, argument, operands
from .dim_map import DimMap
from .table import dim_map

aten = torch.ops.aten


def check_rule(
    target: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None, *, exactly: bool = False
) -> None:
    """Call ``target(*args, **kwargs)`` with changed operands, and compare what moves with what its rule says.

    Every operand dimension that the rule calls token-wise is checked twice: changing one row of it moves no other row
    of the output, and the operator on some rows in another order gives those rows of its output. Evidence, not a proof:
    it is as good as the example. Rows should differ, and no two axes should have one size by accident.

    Args:
        target: what ``torch.library.custom_op`` returns, or an operator of ``torch.ops``.
        args, kwargs: an example call, with real tensors.
        exactly: refuse a rule that is right but says less than it could: a dimension said to be mixed that is not.

    Raises:
        RuleError: the operator does something else; the message names operand, dimension and what moved.
        ArgumentError: the operator cannot be called so.
    """
    target = overload(target)
    check_flag("exactly", exactly)
    called = call(target, args, kwargs or {})
    own = dim_map(called.node)
    rows = {out: [place for place in own.output if is_row(own, place, out)] for out in own.output.values()}
    for output in called.outputs():
        if any(rows.values()) and not agree(called.run()[output.number], output.value):
            raise RuleError(f"the rule of {target}: it keeps rows, but every call of the operator gives another result")
        for place in called.places():
            check_row(called, own, output, place, exactly)
        for out in output.rows:
            why = rows[out] and breaks_gather(called, output, rows[out], out)
            if why:
                raise called.error(rows[out][0], f"is said to be dimension {out} of the output, row by row, but {why}")
    for axis in own.aligned:
        check_alignment(called, axis)


def is_row(own: DimMap, place: Place, out: int) -> bool:
    return own.is_token_wise(*place) and own.output[place] == out


# ---------------------------------------------------------------------------------------------------- one call


@dataclass(frozen=True)
class Output:
    """One tensor that an operator returns.

    Attributes:
        number: which of several, 0 for a single one. value: what it is for the example.
        rows: its dimensions that are, by the rule, dimensions of operands.
    """

    number: int
    value: Tensor
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Called:
    """An operator as a node, with the tensors of its placeholders, which are named by the operator's schema."""

    node: fx.Node
    tensors: dict[fx.Node, Tensor]

    def run(self, changed: dict[fx.Node, Tensor] | None = None) -> list[Any]:
        """Every value that the operator returns."""
        values = self.tensors | (changed or {})
        args, kwargs = fx.map_arg((self.node.args, self.node.kwargs), values.__getitem__)
        result = self.node.target(*args, **kwargs)  # type: ignore[operator]
        return list(result) if isinstance(result, (tuple, list)) else [result]

    def outputs(self) -> list[Output]:
        several = isinstance(self.node.meta["val"], (tuple, list))
        return [
            Output(number, value, self.rows_of(number, value) if several else rows_in(self.node))
            for number, value in enumerate(self.run())
            if isinstance(value, Tensor)
        ]

    def rows_of(self, number: int, value: Tensor) -> tuple[int, ...]:
        item = self.node.graph.call_function(operator.getitem, (self.node, number))
        item.meta["val"] = value
        return rows_in(item)

    def places(self) -> Iterator[Place]:
        for index, operand in enumerate(operands(self.node)):
            if operand is not None:
                yield from ((index, dim) for dim in range(self.tensors[operand].ndim))

    def operand(self, index: int) -> fx.Node:
        operand = operands(self.node)[index]
        assert operand is not None
        return operand

    def size(self, place: Place) -> int:
        index, dim = place
        return self.tensors[self.operand(index)].shape[dim]

    def error(self, place: Place, what: str) -> RuleError:
        index, dim = place
        name = self.operand(index).target
        return RuleError(f"the rule of {self.node.target}: dimension {dim} of operand {index} ({name}) {what}")


def overload(op: Any) -> OpOverload:
    """The one overload of an operator."""
    if isinstance(op, CustomOpDef):
        return op._opoverload
    if isinstance(op, OpOverloadPacket):
        names = op.overloads()
        if len(names) > 1:
            raise RuleError(f"{op} has several overloads; name one: {', '.join(f'{op}.{name}' for name in names)}")
        return getattr(op, names[0])
    if not isinstance(op, OpOverload):
        raise RuleError(
            f"{op!r} is no operator that a captured graph could hold; make it one with torch.library.custom_op"
        )
    return op


def rows_in(node: fx.Node) -> tuple[int, ...]:
    return tuple(sorted(set(dim_map(node).output.values())))


def call(target: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Called:
    """A graph of one node."""
    graph = fx.Graph()
    tensors: dict[fx.Node, Tensor] = {}

    def named(name: str, argument: Any) -> Any:
        leaves, spec = pytree.tree_flatten(argument)
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                leaves[i] = graph.placeholder(name if len(leaves) == 1 else f"{name}[{i}]")
                leaves[i].meta["val"] = leaf
                tensors[leaves[i]] = leaf
        return pytree.tree_unflatten(leaves, spec)

    names = [own.name for own in target._schema.arguments]
    check_sequence("args of an example", args)
    check_kind("kwargs of an example", kwargs, dict)
    try:
        value = target(*args, **kwargs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise ArgumentError(f"args and kwargs are no example call of {target}, which fails: {reason}") from error
    node_args = tuple(named(name, value) for name, value in zip(names, args, strict=False))
    node_kwargs = {name: named(name, value) for name, value in kwargs.items()}
    node = graph.call_function(target, node_args, node_kwargs)
    node.meta["val"] = value
    return Called(node, tensors)


# ------------------------------------------------------------------------------------------------- one row changes


def check_row(called: Called, own: DimMap, output: Output, place: Place, exactly: bool) -> None:
    out, size, shape = own.output.get(place), called.size(place), output.value.shape
    if out is not None and output.number == 0 and shape[out : out + 1] != (size,):
        raise called.error(place, f"has size {size} and cannot be dimension {out} of the output {list(shape)}")
    moved = [moved_elements(called, output, place, position) for position in range(size)]
    is_read = any(elements.any() for elements in moved)
    if not own.is_token_wise(*place):
        if place not in own.mixed and size > 1 and is_read:
            raise called.error(place, "is said to be read by nothing, but changing it moves the output")
        if exactly and place in own.mixed and size > 1:
            check_mixing(called, own, output, place, moved)
        return
    if out not in output.rows:
        if is_read:
            raise called.error(place, f"is read by output {output.number}, which has no such dimension")
        return
    for position, elements in enumerate(moved):
        rows = rows_with(elements, out)
        if set(rows) - {position} or (exactly and is_read and not rows):
            raise called.error(
                place,
                f"is said to be dimension {out} of the output, row by row, but changing its position {position} "
                f"moved positions {rows} of it",
            )


def check_mixing(called: Called, own: DimMap, output: Output, place: Place, moved: list[Tensor]) -> None:
    """A dimension said to be mixed must be no dimension of the output, row by row."""
    for out, out_size in enumerate(output.value.shape):
        diagonal = out_size == len(moved) and all(rows_with(moved[p], out) == [p] for p in range(out_size))
        group = {place, *(other for other in own.output if own.output[other] == out)}
        if diagonal and not breaks_gather(called, output, sorted(group), out):
            raise called.error(place, f"is said to be mixed but is dimension {out} of the output, row by row")


def moved_elements(called: Called, output: Output, place: Place, position: int) -> Tensor:
    """Which elements of the output change when those of an operand at ``position`` do: a bool tensor of its shape."""
    index, dim = place
    operand = called.operand(index)
    tensor = called.tensors[operand]
    moved = torch.zeros_like(output.value, dtype=torch.bool)
    for other in other_values(tensor):
        chosen = torch.arange(tensor.shape[dim], device=tensor.device) == position
        chosen = chosen.view([-1 if own == dim else 1 for own in range(tensor.ndim)])
        try:
            after = called.run({operand: torch.where(chosen, other, tensor)})[output.number]
        except (RuntimeError, IndexError, ValueError):
            # Whether the operator works at all depends on this row.
            return torch.ones_like(moved)
        if after.shape != moved.shape:
            return torch.ones_like(moved)
        moved |= ~torch.isclose(after, output.value, equal_nan=True)
    return moved


def other_values(tensor: Tensor) -> list[Tensor]:
    """Values to put in place of a tensor's own: not a number, which spreads, and others that an order tells apart."""
    if tensor.is_floating_point() or tensor.is_complex():
        return [torch.full_like(tensor, float("nan")), -tensor, torch.zeros_like(tensor)]
    if tensor.dtype is torch.bool:
        return [~tensor]
    # Positions must stay within the range that the example has.
    low, high = tensor.amin(), tensor.amax()
    return [torch.where(tensor == low, high, low)]


def rows_with(moved: Tensor, dim: int) -> list[int]:
    """Positions along ``dim`` at which something moved."""
    return moved.movedim(dim, 0).reshape(moved.shape[dim], -1).any(1).nonzero().flatten().tolist()


# --------------------------------------------------------------------------------------------------- rows are taken


def breaks_gather(called: Called, output: Output, group: Sequence[Place], out: int) -> str:
    """How the operator on rows of the operands in ``group`` is not those rows of its output; empty where it is."""
    if is_causal(called.node):
        return ""
    size = output.value.shape[out]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(size, generator=generator)
    if torch.equal(order, torch.arange(size)):
        order = order.flip(0)
    for rows in (order, order[1:]) if size > 1 and called.node.target not in SIZED else (order,):
        rows = rows.to(output.value.device)
        taken: dict[fx.Node, Tensor] = {}
        for index, dim in group:
            operand = called.operand(index)
            taken[operand] = taken.get(operand, called.tensors[operand]).index_select(dim, rows)
        try:
            found = called.run(taken)[output.number]
        except (RuntimeError, IndexError, ValueError) as error:
            return f"on its rows {rows.tolist()} the operator fails: {error}"
        if not agree(found, output.value.index_select(out, rows)):
            return f"its rows {rows.tolist()} do not give those rows of the output"
    return ""


def agree(found: Tensor, expected: Tensor) -> bool:
    """Whether two results are the same but for rounding."""
    try:
        torch.testing.assert_close(found, expected, equal_nan=True)
    except AssertionError:
        return False
    return True


SIZED = (aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default)
"""Operators whose sizes `split` rewrites, so that they may be called with fewer rows."""


def is_causal(node: fx.Node) -> bool:
    """Whether attention counts its rows; `split` gives it a mask of the rows that it has."""
    return node.target is aten.scaled_dot_product_attention.default and bool(argument(node, "is_causal"))


def check_alignment(called: Called, axis: Sequence[Place]) -> None:
    """Dimensions that are one axis, which is summed away, can be reversed together without changing the value."""
    if len(axis) < 2 or is_causal(called.node):
        return
    changed: dict[fx.Node, Tensor] = {}
    for index, dim in axis:
        operand = called.operand(index)
        changed[operand] = changed.get(operand, called.tensors[operand]).flip(dim)
    for before, after in zip(called.run(), called.run(changed)):
        if isinstance(before, Tensor) and not agree(after, before):
            raise called.error(
                axis[0], f"is said to be one axis with {list(axis[1:])} (operand, dimension), but is not"
            )

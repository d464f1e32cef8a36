"""Follow the numbers of tokens from the region's rows through what is computed of them, move by move."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..graph.operands import argument, operands, shape_of
from ..rules.flops import hint
from ..rules.moves import MOVES_TOKENS
from ..rules.reshapes import RESHAPES, kept_dimensions
from ..rules.table import dim_map
from .plan import Plan

aten = torch.ops.aten

MOST = 8
"""An element of a result may be computed of so many tokens, as guidance inside of a step takes two; not of more."""

LARGEST = 1 << 22
"""Numbers of so many elements are worth to be written out."""


class UnknownValueError(Exception):
    """Tokens depend on a value that is only known when the step runs."""


def compressed(numbers: Tensor) -> Tensor:
    """Numbers with size 1 along each dimension where they are the same, and each token once."""
    for dim in range(1, numbers.ndim):
        if numbers.shape[dim] > 1 and bool((numbers == numbers.narrow(dim, 0, 1)).all()):
            numbers = numbers.narrow(dim, 0, 1)
    kept: list[Tensor] = []
    for own in numbers:
        if not any(torch.equal(own, other) for other in kept):
            kept.append(own)
    return torch.stack(kept) if kept else numbers


class RowNumbering:
    """Follows the numbers of tokens from the region's rows to a result.

    Each value has numbers ``[K, ...]``, with size 1 along dimensions where they are the same; no numbers, ``[0, ...]``,
    where it is computed of no token; None where it is of many.

    Args:
        values: of one call; without them, what depends on them raises `UnknownValueError`.
    """

    def __init__(self, plan: Plan, values: Mapping[fx.Node, Any] | None = None) -> None:
        self.plan = plan
        self.values = values
        self.known: dict[fx.Node, Tensor | None] = {}

    def of(self, node: fx.Node) -> Tensor | None:
        if node not in self.known:
            self.known[node] = self.found(node)
        return self.known[node]

    def found(self, node: fx.Node) -> Tensor | None:
        region = self.plan.region
        if node in region.rows:
            return self.of_rows(node)
        if region.is_before(node):
            return torch.empty(0, *[1] * len(shape_of(node)), dtype=torch.int64)
        if node.op != "call_function" or (node in region.full and node.target not in MOVES_TOKENS):
            return None
        if node.target is operator.getitem:
            return self.of_part(node)
        given = [None if own is None else self.of(own) for own in operands(node)]
        if any(numbers is None for own, numbers in zip(operands(node), given) if own is not None):
            return None
        if node.target in MOVES:
            return MOVES[node.target](self, node, [own for own in given if own is not None])
        return self.through(node, given)

    def of_rows(self, node: fx.Node) -> Tensor:
        """Of a value that consists of rows: its samples and tokens where the layout says."""
        rows, layout, axes = self.plan.region.rows[node], self.plan.region.layouts[node], self.plan.axes
        start = axes.start(rows.streams)
        count = sum(axes.lengths[number] for number in rows.streams)
        numbers = torch.arange(self.plan.samples)[:, None] * axes.length + start + torch.arange(count)
        cut = [1] * len(layout.shape)
        cut[layout.batch_dim], cut[layout.token_dim] = numbers.shape
        order = (0, 1) if layout.batch_dim < layout.token_dim else (1, 0)
        numbers = numbers.permute(order).reshape(cut)
        joined, at = [], 0
        for width in layout.joined:
            if width == 0:
                at += 1
                continue
            parts = range(at, at + width)
            if any(numbers.shape[part] > 1 for part in parts) and width > 1:
                numbers = numbers.expand([layout.shape[d] if d in parts else s for d, s in enumerate(numbers.shape)])
            joined.append(math.prod(numbers.shape[part] for part in parts))
            at += width
        return numbers.reshape(1, *joined)

    def of_part(self, node: fx.Node) -> Tensor | None:
        """One of the values of an operator that has several."""
        whole, number = node.args[0], node.args[1]
        assert isinstance(whole, fx.Node)
        if whole.target in (aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int):
            numbers = self.of(whole.all_input_nodes[0])
            if numbers is None:
                return None
            assert isinstance(number, int)
            return self.parts(whole, numbers)[number]
        own = operands(whole)
        given = [None if operand is None else self.of(operand) for operand in own]
        if any(numbers is None for operand, numbers in zip(own, given) if operand is not None):
            return None
        return self.through(whole, given) if shape_of(whole) == shape_of(node) else None

    def parts(self, node: fx.Node, numbers: Tensor) -> Sequence[Tensor]:
        """Of all values of an operator that cuts its operand."""
        (operand,) = operands(node)
        if not len(numbers):
            return [numbers.new_empty(0, *[1] * value.ndim) for value in node.meta["val"]]
        args = [argument(node, name) for name in argument_names(node)[1:]]
        cut = [run(node, own, *args) for own in along(numbers, shape_of(operand), argument(node, "dim"))]
        return [torch.stack(part) for part in zip(*cut)]

    def through(self, node: fx.Node, given: Sequence[Tensor | None]) -> Tensor | None:
        """Through an operator that computes: each element reads what its rule says."""
        own, rank = dim_map(node), len(shape_of(node))
        found: list[Tensor] = []
        for index, numbers in enumerate(given):
            if numbers is None or not len(numbers):
                continue
            places = [own.output.get((index, dim)) for dim in range(numbers.ndim - 1)]
            moved = placed(
                numbers, [out if own.is_token_wise(index, dim) else None for dim, out in enumerate(places)], rank
            )
            if moved is None:
                return None
            found.append(moved)
        return union(found, rank)


def placed(numbers: Tensor, places: Sequence[int | None], rank: int) -> Tensor | None:
    """Numbers at the dimensions of a value that is computed of theirs; None where an element is of many tokens.

    Args:
        places: for each dimension the one of the value that it is; None where an element reads all along it.
    """
    gone = [dim for dim, out in enumerate(places) if out is None]
    kept = sorted((out, dim) for dim, out in enumerate(places) if out is not None)
    if len(numbers) * math.prod(numbers.shape[1 + dim] for dim in gone) > MOST:
        return None
    sizes = [1] * rank
    for out, dim in kept:
        sizes[out] = numbers.shape[1 + dim]
    ordered = numbers.permute(0, *(1 + dim for dim in gone), *(1 + dim for _, dim in kept))
    return ordered.flatten(0, len(gone)).reshape(-1, *sizes)


def union(found: Sequence[Tensor], rank: int) -> Tensor | None:
    """The tokens of several operands together; None where these are many."""
    if not found:
        return torch.empty(0, *[1] * rank, dtype=torch.int64)
    sizes = torch.broadcast_shapes(*(own.shape[1:] for own in found))
    joined = compressed(torch.cat([own.expand(len(own), *sizes) for own in found]))
    return joined if len(joined) <= MOST else None


def along(numbers: Tensor, shape: Sequence[Any], dim: int) -> Tensor:
    """Numbers written out along one dimension of a value."""
    dim = dim % len(shape)
    return numbers.expand([hint(shape[own - 1]) if own - 1 == dim else size for own, size in enumerate(numbers.shape)])


# ---------------------------------------------------------------------------------------------- operators that move

Move = Callable[[RowNumbering, fx.Node, list[Tensor]], "Tensor | None"]


def reshaped(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor | None:
    (numbers,), (operand,) = given, operands(node)
    before, after = [hint(size) for size in shape_of(operand)], [hint(size) for size in shape_of(node)]
    # What is the same along a dimension that stays in place need not be written out.
    for dim, out in kept_dimensions(before, after).items():
        if numbers.shape[1 + dim] == 1:
            before[dim] = after[out] = 1
    if not len(numbers):
        return numbers.new_empty(0, *[1] * len(after))
    if math.prod(before) * len(numbers) > LARGEST:
        return None
    return compressed(numbers.expand(len(numbers), *before).reshape(len(numbers), *after))


def permuted(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor:
    (numbers,) = given
    return numbers.permute(0, *(1 + dim % len(shape_of(node)) for dim in argument(node, "dims")))


def transposed(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor:
    (numbers,), rank = given, len(shape_of(node))
    return numbers.transpose(1 + argument(node, "dim0") % rank, 1 + argument(node, "dim1") % rank)


def unsqueezed(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor:
    return given[0].unsqueeze(1 + argument(node, "dim") % len(shape_of(node)))


def squeezed(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor:
    (operand,), (numbers,) = operands(node), given
    chosen = argument(node, "dim")
    rank = len(shape_of(operand))
    dims = {dim % rank for dim in ([chosen] if isinstance(chosen, int) else chosen)}
    for dim in sorted(dims, reverse=True):
        if hint(shape_of(operand)[dim]) == 1:
            numbers = numbers.squeeze(1 + dim)
    return numbers


def expanded(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor:
    (numbers,) = given
    new = len(shape_of(node)) - (numbers.ndim - 1)
    return numbers.reshape(len(numbers), *[1] * new, *numbers.shape[1:])


def repeated_rows(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor:
    (numbers,), times = given, argument(node, "repeats")
    new = len(times) - (numbers.ndim - 1)
    numbers = numbers.reshape(len(numbers), *[1] * new, *numbers.shape[1:])
    return numbers.repeat(1, *(count if size > 1 else 1 for count, size in zip(times, numbers.shape[1:])))


def along_its_dim(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor:
    """One operand, of which some positions along one dimension, or several, are taken or put elsewhere."""
    (operand,), (numbers,), names = operands(node), given, argument_names(node)
    if not len(numbers):
        return numbers.new_empty(0, *[1] * len(shape_of(node)))
    dims = argument(node, "dims") if "dims" in names else argument(node, "dim")
    for dim in [dims] if isinstance(dims, int) else dims or range(len(shape_of(operand))):
        numbers = along(numbers, shape_of(operand), dim)
    return torch.stack([run(node, own, *(argument(node, name) for name in names[1:])) for own in numbers])


def joined(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor | None:
    """``cat``, of operands that may have other numbers of tokens an element."""
    dim, rank = argument(node, "dim") % len(shape_of(node)), len(shape_of(node))
    count = max((len(own) for own in given), default=0)
    if not count or any(not len(own) for own in given):
        # Part of it is of no token: nothing says what to compute for that.
        return None if count else torch.empty(0, *[1] * rank, dtype=torch.int64)
    sizes = torch.broadcast_shapes(*([*own.shape[1 : 1 + dim], 1, *own.shape[2 + dim :]] for own in given))
    parts = []
    for own, operand in zip(given, operands(node)):
        wide = list(sizes)
        wide[dim] = hint(shape_of(operand)[dim])
        every = own.expand(len(own), *wide)
        # The same token again stands for none.
        parts.append(torch.cat([every, every[:1].expand(count - len(every), *wide)]))
    return torch.cat(parts, 1 + dim)


def stacked(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor | None:
    dim = argument(node, "dim") % len(shape_of(node))
    if len({len(own) for own in given}) != 1:
        return None
    sizes = torch.broadcast_shapes(*(own.shape for own in given))
    return torch.stack([own.expand(sizes) for own in given], 1 + dim)


def gathered(numbering: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor | None:
    """``gather(x, dim, index)``, whose index may be known in a call alone."""
    operand, index = operands(node)
    assert operand is not None
    assert index is not None
    dim = argument(node, "dim") % len(shape_of(node))
    if numbering.values is None:
        raise UnknownValueError
    at = numbering.values.get(index)
    numbers = given[0]
    if at is None or not len(numbers):
        return None
    at = compressed(at.cpu()[None])[0]
    # Along other dimensions an index reads the position that it stands at.
    sizes = [max(a, b) for a, b in zip(at.shape, numbers.shape[1:])]
    wide = [hint(shape_of(operand)[dim]) if own == dim else size for own, size in enumerate(sizes)]
    sizes[dim] = at.shape[dim]
    full = numbers.expand(len(numbers), *wide)
    return torch.stack([own.gather(dim, at.expand(sizes)) for own in full])


def run(node: fx.Node, *args: Any) -> Any:
    """The operator of a node on other arguments."""
    target: Any = node.target
    return target(*args)


def argument_names(node: fx.Node) -> list[str]:
    target: Any = node.target
    return [own.name for own in target._schema.arguments]


def same(_: RowNumbering, node: fx.Node, given: list[Tensor]) -> Tensor:
    return given[0]


MOVES: dict[Any, Move] = {
    **dict.fromkeys(RESHAPES, reshaped),
    aten.permute.default: permuted,
    aten.transpose.int: transposed,
    aten.unsqueeze.default: unsqueezed,
    aten.squeeze.dim: squeezed,
    aten.squeeze.dims: squeezed,
    aten.expand.default: expanded,
    aten.repeat.default: repeated_rows,
    aten.slice.Tensor: along_its_dim,
    aten.select.int: along_its_dim,
    aten.flip.default: along_its_dim,
    aten.roll.default: along_its_dim,
    aten.cat.default: joined,
    aten.stack.default: stacked,
    aten.gather.default: gathered,
    aten.clone.default: same,
    aten.contiguous.default: same,
}

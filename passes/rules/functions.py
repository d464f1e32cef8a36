"""Rules that take more than a line of notation: those that read an operator's other arguments.

Each takes a node and says what its operator does to dimensions, or makes such a function.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from ..graph.operands import argument, operands, same_size, same_sizes, shape_of
from .dim_map import DimMap, Rule, finished
from .notation import pattern


def pointwise(node: fx.Node) -> DimMap:
    """Operands broadcast from the right; every dimension stays."""
    missing = [len(shape_of(node)) - len(shape_of(operand)) for operand in operands(node)]
    return finished(node, kept(node, lambda index, dim: dim + missing[index]))


def mixes_everything(node: fx.Node) -> DimMap:
    return finished(node, {})


def reads_nothing(node: fx.Node) -> DimMap:
    """A new tensor, in which no value of an operand is."""
    return DimMap()


def rows_alone(node: fx.Node) -> DimMap:
    """All operands have the same rows, and a row of the output is computed of those; what is in a row is mixed."""
    return finished(node, kept(node, lambda index, dim: dim if dim < len(shape_of(node)) - 1 else None))


def kept(node: fx.Node, place: Callable[[int, int], int | None]) -> dict[tuple[int, int], int]:
    """``place(operand, dim)`` is the output dimension that an operand's dimension is, if it has that one's size."""
    out_shape = shape_of(node)
    found = {}
    for index, operand in enumerate(operands(node)):
        for dim, size in enumerate(shape_of(operand)):
            out = place(index, dim)
            if out is not None and 0 <= out < len(out_shape) and same_size(size, out_shape[out]):
                found[index, dim] = out
    return found


def rank_of(node: fx.Node) -> int:
    """Number of dimensions of the first operand; at least 1, so that -1 is one of them."""
    return max(1, len(shape_of(operands(node)[0])))


def dims_of(node: fx.Node, name: str) -> set[int]:
    """The dimensions that the argument ``name`` gives, all where it gives none."""
    rank = rank_of(node)
    chosen = argument(node, name)
    chosen = [chosen] if isinstance(chosen, int) else chosen or range(rank)
    return {dim % rank for dim in chosen}


# ---------------------------------------------------------------------------------------- dimensions that are mixed


def along(name: str = "dim") -> Rule:
    """Every dimension stays in place; those in the argument ``name`` are mixed."""

    def rule(node: fx.Node) -> DimMap:
        return finished(node, kept(node, lambda _, dim: dim), {(0, dim) for dim in dims_of(node, name)})

    return rule


def reduced(node: fx.Node) -> DimMap:
    """The dimensions in ``dim`` are summed away, or of size 1; the others stay."""
    gone = dims_of(node, "dim")
    left = [dim for dim in range(rank_of(node)) if argument(node, "keepdim") or dim not in gone]
    return finished(node, kept(node, lambda _, dim: left.index(dim) if dim not in gone else None))


def except_along(name: str = "dim") -> Rule:
    """Every dimension of every operand stays but those that the argument ``name`` gives: cut, joined or reordered."""

    def rule(node: fx.Node) -> DimMap:
        gone = dims_of(node, name)
        return finished(node, kept(node, lambda _, dim: None if dim in gone else dim))

    return rule


def normalized(node: fx.Node) -> DimMap:
    """Layer and RMS norm: mix the last dimensions, as many as ``normalized_shape`` has."""
    first = rank_of(node) - len(argument(node, "normalized_shape"))
    output = kept(node, lambda index, dim: dim if index == 0 else first + dim)
    return finished(node, output, {(0, dim) for dim in range(first, rank_of(node))})


def softmax_attention(node: fx.Node) -> DimMap:
    """Each query reads every key; with dropout the whole is drawn anew at every call."""
    if argument(node, "dropout_p"):
        return mixes_everything(node)
    return pattern("... n c, ... m c, ... m v, ... n m? -> ... n v")(node)


def dropout(node: fx.Node) -> DimMap:
    """Random where it is active."""
    train = argument(node, "train")
    return pointwise(node) if train is False or argument(node, "p") == 0 else mixes_everything(node)


def convolution(node: fx.Node) -> DimMap:
    """A dimension that keeps its size under stride 1 stays in place, mixed unless the kernel has one position there.

    ``groups`` counts channels, so those of a depthwise convolution stay in place without being rows of their own.
    """
    x, weight, _ = operands(node)
    shape, kernel, transposed = shape_of(x), shape_of(weight), argument(node, "transposed")
    single = argument(node, "groups") == 1
    depthwise = not single and same_size(shape[1], argument(node, "groups")) and same_size(shape[1], shape_of(node)[1])
    out_channels = int(transposed)
    output, mixed = {(0, 0): 0} | ({(2, 0): 1} if operands(node)[2] is not None else {}), set()
    for dim in range(2, len(shape)):
        if argument(node, "stride")[dim - 2] == 1 and same_size(shape[dim], shape_of(node)[dim]):
            output[0, dim] = dim
            mixed |= set() if same_size(kernel[dim], 1) else {(0, dim)}
    if single:
        output[1, out_channels] = 1
        return finished(node, output, mixed, (((0, 1), (1, 1 - out_channels)),))
    output |= {(0, 1): 1, (1, 0): 1} if depthwise else {}
    return finished(node, output, mixed | {place for place, out in output.items() if out == 1})


def pooled(spatial: int) -> Rule:
    """The last dimensions, so many, are mixed; they stay in place under stride 1 where they keep their size."""

    def rule(node: fx.Node) -> DimMap:
        first = rank_of(node) - spatial
        strides = argument(node, "stride") or argument(node, "kernel_size")
        strides = [*strides] * (spatial // len(strides))
        output = kept(node, lambda _, dim: dim if dim < first or strides[dim - first] == 1 else None)
        return finished(node, output, {(0, dim) for dim in range(first, first + spatial)})

    return rule


def padded(node: fx.Node) -> DimMap:
    """``constant_pad_nd``: pairs of paddings from the last dimension on; what is not padded stays."""
    pad, rank = argument(node, "pad"), rank_of(node)
    gone = {rank - 1 - place // 2 for place, width in enumerate(pad) if width != 0}
    return finished(node, kept(node, lambda _, dim: None if dim in gone else dim))


# ---------------------------------------------------------------------------------------------------- contractions


def matmul(node: fx.Node) -> DimMap:
    a, b = operands(node)
    left = "... n c" if len(shape_of(a)) > 1 else "c"
    right = "... c m" if len(shape_of(b)) > 1 else "c"
    kept = " ".join(axis for axis in ("...", "n", "m") if axis in left.split() + right.split())
    return pattern(f"{left}, {right} -> {kept}")(node)


def einsum(node: fx.Node) -> DimMap:
    """The equation in the notation of rules; a diagonal, ``ii``, has none."""
    inputs, arrow, output = argument(node, "equation").replace(" ", "").partition("->")
    axes = [re.findall(r"\.\.\.|\w", part) for part in inputs.split(",")]
    if any(len(set(own)) < len(own) for own in axes):
        return mixes_everything(node)
    if not arrow:
        letters = re.findall(r"\w", inputs)
        output = "..." * ("..." in inputs) + "".join(sorted(a for a in set(letters) if letters.count(a) == 1))
    out_axes = re.findall(r"\.\.\.|\w", output)
    return pattern(f"{', '.join(' '.join(own) for own in axes)} -> {' '.join(out_axes)}")(node)


def searched(node: fx.Node) -> DimMap:
    """``searchsorted``: one sorted sequence for all, or one a row."""
    one = len(shape_of(operands(node)[0])) == 1
    return pattern("s, ... -> ..." if one else "... s, ... v, ... s? -> ... v")(node)


# ------------------------------------------------------------------------------------------- dimensions that move


def moved(order: Callable[[fx.Node, int], Sequence[int | None]]) -> Rule:
    """``order(node, rank)`` gives the input dimension at each output dimension, None where a new one stands."""

    def rule(node: fx.Node) -> DimMap:
        dims = order(node, len(shape_of(operands(node)[0])))
        return finished(node, {(0, dim): out for out, dim in enumerate(dims) if dim is not None})

    return rule


def permuted(node: fx.Node, rank: int) -> list[int | None]:
    return [dim % rank for dim in argument(node, "dims")]


def reversed_(node: fx.Node, rank: int) -> list[int | None]:
    return [*range(rank)][::-1]


def transposed(node: fx.Node, rank: int) -> list[int | None]:
    order: list[int | None] = [*range(rank)]
    a, b = argument(node, "dim0") % rank, argument(node, "dim1") % rank
    order[a], order[b] = b, a
    return order


def unsqueezed(node: fx.Node, rank: int) -> list[int | None]:
    order: list[int | None] = [*range(rank)]
    order.insert(argument(node, "dim") % (rank + 1), None)
    return order


def squeezed(node: fx.Node, rank: int) -> list[int | None]:
    shape = shape_of(operands(node)[0])
    return [dim for dim in range(rank) if dim not in dims_of(node, "dim") or not same_size(shape[dim], 1)]


def selected(node: fx.Node, rank: int) -> list[int | None]:
    return [dim for dim in range(rank) if dim != argument(node, "dim") % rank]


def diagonal(node: fx.Node, rank: int) -> list[int | None]:
    pair = {argument(node, "dim1") % rank, argument(node, "dim2") % rank}
    return [*(dim for dim in range(rank) if dim not in pair), None]


def stacked(node: fx.Node) -> DimMap:
    new = argument(node, "dim") % len(shape_of(node))
    return finished(node, kept(node, lambda _, dim: dim + (dim >= new)))


def sliced(node: fx.Node) -> DimMap:
    whole = same_sizes(shape_of(operands(node)[0]), shape_of(node)) and argument(node, "step") == 1
    return pointwise(node) if whole else except_along()(node)


# -------------------------------------------------------------------------------------------- reading by position


def gathered(node: fx.Node) -> DimMap:
    """``gather(x, dim, index)``: the output's dimensions are the index's, and x's where both have its size."""
    _, index = operands(node)
    (dim,) = dims_of(node, "dim")
    output = kept(node, lambda number, own: None if (number, own) == (0, dim) else own)
    # A shorter index reads the first rows of x, whichever rows the index itself is cut to.
    cut = [own for own in range(len(shape_of(index))) if own != dim and (0, own) not in output]
    return finished(node, output, {(1, own) for own in cut})


def index_selected(node: fx.Node) -> DimMap:
    (dim,) = dims_of(node, "dim")
    return finished(node, kept(node, lambda number, own: dim if number == 1 else None if own == dim else own))


def indexed(node: fx.Node) -> DimMap:
    """``x[indices]``: unindexed dimensions stay, those of the indices stand together in place of the indexed ones."""
    layout, tensors = index_layout(node), operands(node)

    def place(number: int, dim: int) -> int | None:
        if number == 0:
            return None if dim in layout.indexed else layout.dims.index(dim)
        return None if is_mask(tensors[number]) else layout.stop - len(shape_of(tensors[number])) + dim

    return finished(node, kept(node, place))


def written_at(node: fx.Node) -> DimMap:
    """``x[indices] = values``: x stays; its indexed dimensions are mixed unless a mask is filled with one value."""
    layout, (_, *indices, values) = index_layout(node), operands(node)
    missing = len(layout.dims) - len(shape_of(values))
    last = len(indices) + 1
    output = kept(node, lambda n, dim: dim if n == 0 else layout.dims[dim + missing] if n == last else None)
    one_value = all(
        same_size(size, 1) for dim, size in enumerate(shape_of(values), missing) if layout.start <= dim < layout.stop
    )
    masks = [number for number, index in enumerate(indices, 1) if index is not None]
    if one_value and len(masks) == 1 and is_mask(indices[masks[0] - 1]):
        output |= {(masks[0], dim): own for dim, own in enumerate(layout.indexed)}
        return finished(node, output)
    return finished(node, output, {(0, dim) for dim in layout.indexed})


@dataclass(frozen=True)
class IndexLayout:
    """The dimensions of ``x[indices]``.

    Attributes:
        dims: for each the dimension of x that it is; None from ``start`` to ``stop``, where it is one of the indices.
        indexed: dimensions of x that indices take the place of.
    """

    dims: tuple[int | None, ...]
    indexed: tuple[int, ...]
    start: int
    stop: int


def index_layout(node: fx.Node) -> IndexLayout:
    at = 0
    indexed: list[int] = []
    ranks: list[int] = []
    for index in argument(node, "indices"):
        width = len(shape_of(index)) if is_mask(index) else 1
        if index is not None:
            indexed += range(at, at + width)
            # A mask is as many indices as it has dimensions, of one dimension each.
            ranks.append(1 if is_mask(index) else len(shape_of(index)))
        at += width
    left = [dim for dim in range(rank_of(node)) if dim not in indexed]
    # Indices that do not stand side by side move to the front.
    start = indexed[0] if indexed == [*range(indexed[0], indexed[-1] + 1)] else 0
    block = max(ranks)
    return IndexLayout((*left[:start], *[None] * block, *left[start:]), tuple(indexed), start, start + block)


def is_mask(index: fx.Node | None) -> bool:
    return index is not None and index.meta["val"].dtype in (torch.bool, torch.uint8)


# -------------------------------------------------------------------------------------------- writing by position


def written_along(node: fx.Node) -> DimMap:
    """``scatter``, ``index_add``, ``slice_scatter``: x stays; ``dim``, along which something is written, is mixed."""
    shape = shape_of(node)
    (dim,) = dims_of(node, "dim")
    written = {number: shape_of(operand) for number, operand in enumerate(operands(node)) if number > 0}
    written = {number: sizes for number, sizes in written.items() if len(sizes) == len(shape)}
    # What is shorter than x in another dimension is written to its first rows.
    short = {own for sizes in written.values() for own in range(len(shape)) if not same_size(sizes[own], shape[own])}
    output = kept(node, lambda number, own: own if number == 0 or (number in written and own != dim) else None)
    return finished(node, output, {(0, own) for own in short | {dim}})


def slice_written(node: fx.Node) -> DimMap:
    whole = same_sizes(shape_of(operands(node)[1]), shape_of(node)) and argument(node, "step") == 1
    return pointwise(node) if whole else written_along(node)


def select_written(node: fx.Node) -> DimMap:
    (dim,) = dims_of(node, "dim")
    return finished(node, kept(node, lambda number, own: own + (number == 1 and own >= dim)), {(0, dim)})

"""What every operator does to dimensions: one line an operator where a line can say it.

A rule says which operand dimension each output dimension is, and along which dimensions an output element reads more
than its own position (it *mixes* them). A line of the table gives one pattern an operand::

    "... c, o c, o? -> ... o"          linear: a row of the output reads the same row of the input; c is summed away
    "... c -> ... c | mixes c"         an output element reads the whole of c

``...`` stands for any leading dimensions, broadcast from the right; ``?`` marks an operand that may be missing. A
dimension that is not in the output is mixed without saying so. An operator without a rule mixes everything.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sympy
import torch
from torch import fx

aten = torch.ops.aten

Place = tuple[int, int]
"""(operand, dimension)"""


@dataclass(frozen=True)
class DimMap:
    """What an operator does to the dimensions of its tensor operands.

    Attributes:
        output: the output dimension that an operand's dimension is.
        mixed: operand dimensions along which an output element reads more than its own position.
        aligned: operand dimensions that are one axis of the operation although no output dimension is.
    """

    output: dict[Place, int] = field(default_factory=dict)
    mixed: frozenset[Place] = frozenset()
    aligned: tuple[tuple[Place, ...], ...] = ()

    def is_token_wise(self, operand: int, dim: int) -> bool:
        """Whether an output row reads no other row of ``operand`` along ``dim``."""
        return (operand, dim) in self.output and (operand, dim) not in self.mixed


def operands(node: fx.Node) -> list[fx.Node | None]:
    """The tensors among the operator's arguments in the order of its schema, None where one is missing."""
    found: list[fx.Node | None] = []
    map_operands(node, lambda _, operand: found.append(operand))
    return found


def map_operands(node: fx.Node, change: Callable[[int, fx.Node | None], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of ``node`` with ``change(number, operand)`` in place of each operand; sizes stay as they are."""
    if not hasattr(node.target, "_schema"):
        if node.target is operator.getitem:
            return (change(0, node.args[0]), *node.args[1:]), {}  # type: ignore[arg-type]
        return node.args, dict(node.kwargs)
    numbers = itertools.count()
    args: list[Any] = list(node.args)
    kwargs: dict[str, Any] = dict(node.kwargs)
    for place, argument in enumerate(node.target._schema.arguments):
        given = place < len(args) or argument.name in kwargs
        value = args[place] if place < len(args) else kwargs.get(argument.name, argument.default_value)
        kind = str(argument.type)
        if "List[" in kind and "Tensor" in kind:
            value = [change(next(numbers), item) for item in value or ()]
        elif kind in ("Tensor", "Optional[Tensor]") or (isinstance(value, fx.Node) and is_tensor(value)):
            # A number in place of a tensor, ``add(x, 1)``, is no operand but has an operand's place.
            changed = change(next(numbers), value if isinstance(value, fx.Node) else None)
            value = changed if isinstance(value, fx.Node) else value
        if place < len(args):
            args[place] = value
        elif given:
            kwargs[argument.name] = value
    return tuple(args), kwargs


def schema_arguments(node: fx.Node) -> list[tuple[Any, Any]]:
    schema = node.target._schema  # type: ignore[union-attr]
    return [
        (argument, node.args[i] if i < len(node.args) else node.kwargs.get(argument.name, argument.default_value))
        for i, argument in enumerate(schema.arguments)
    ]


def argument(node: fx.Node, name: str) -> Any:
    """The value of the operator's argument ``name``, its default included."""
    return next(value for own, value in schema_arguments(node) if own.name == name)


def is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def shape_of(node: fx.Node) -> tuple[Any, ...]:
    """Shape of a node's value, of the first for an operator with several."""
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        value = next((item for item in value if isinstance(item, torch.Tensor)), None)
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def same_size(a: Any, b: Any) -> bool:
    """Whether two sizes are equal as expressions; asks nothing of symbolic ones."""
    return bool(expression(a) == expression(b))


def expression(size: Any) -> sympy.Expr:
    return size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)


# ---------------------------------------------------------------------------------------------- rules as functions


def pattern(text: str) -> Callable[[fx.Node], DimMap]:
    """A rule from its line in the table."""
    signature, _, mixes = text.partition("|")
    inputs, _, output = signature.partition("->")
    input_axes = [part.replace("?", "").split() for part in inputs.split(",")]
    output_axes = output.split()
    also_mixed = set(mixes.replace("mixes", "").split())

    def rule(node: fx.Node) -> DimMap:
        out_shape = shape_of(node)
        out_places = named_dimensions(output_axes, len(out_shape))
        of_axis: dict[str, list[Place]] = {}
        output: dict[Place, int] = {}
        mixed: set[Place] = set()
        for index, (axes, operand) in enumerate(zip(input_axes, operands(node))):
            if operand is None:
                continue
            shape = shape_of(operand)
            for axis, dim in named_dimensions(axes, len(shape)).items():
                place = (index, dim)
                if axis in out_places and same_size(shape[dim], out_shape[out_places[axis]]):
                    output[place] = out_places[axis]
                elif axis not in out_places:
                    of_axis.setdefault(axis, []).append(place)
                if axis in also_mixed:
                    mixed.add(place)
        return finished(node, output, mixed, tuple(tuple(places) for places in of_axis.values()))

    return rule


def named_dimensions(axes: list[str], rank: int) -> dict[str, int]:
    """Axis name to dimension, from the right; the dimensions of ``...`` are named by their distance from its end."""
    if axes and axes[0] == "...":
        leading = rank - len(axes) + 1
        names = {f"...{leading - dim}": dim for dim in range(leading)}
        return names | {axis: leading + i for i, axis in enumerate(axes[1:])}
    missing = len(axes) - rank
    return {axis: i - missing for i, axis in enumerate(axes) if i >= missing}


def finished(
    node: fx.Node, output: dict[Place, int], mixed: set[Place], aligned: tuple[tuple[Place, ...], ...] = ()
) -> DimMap:
    """Complete a map: what does not reach the output is mixed, unless it has a single position."""
    for index, operand in enumerate(operands(node)):
        for dim, size in enumerate(shape_of(operand) if operand is not None else ()):
            if (index, dim) not in output and not same_size(size, 1):
                mixed.add((index, dim))
    return DimMap(output, frozenset(mixed), aligned)


def pointwise(node: fx.Node) -> DimMap:
    """Operands broadcast from the right; every dimension stays."""
    out_shape = shape_of(node)
    output = {}
    for index, operand in enumerate(operands(node)):
        shape = shape_of(operand) if operand is not None else ()
        for dim, size in enumerate(shape):
            out_dim = dim + len(out_shape) - len(shape)
            if same_size(size, out_shape[out_dim]):
                output[index, dim] = out_dim
    return finished(node, output, set())


def mixes_everything(node: fx.Node) -> DimMap:
    return finished(node, {}, set())


def along(name: str, *, keeps: bool = True) -> Callable[[fx.Node], DimMap]:
    """Every dimension stays in place; those in the argument ``name`` are mixed, and left out where not ``keeps``."""

    def rule(node: fx.Node) -> DimMap:
        x = operands(node)[0]
        assert x is not None
        rank = len(shape_of(x))
        chosen = argument(node, name)
        chosen = range(rank) if chosen is None or chosen == [] else [chosen] if isinstance(chosen, int) else chosen
        dims = {dim % rank for dim in chosen}
        if keeps or argument(node, "keepdim"):
            output = {(0, dim): dim for dim in range(rank) if keeps or dim not in dims}
        else:
            output = {(0, dim): i for i, dim in enumerate(dim for dim in range(rank) if dim not in dims)}
        return finished(node, output, {(0, dim) for dim in dims})

    return rule


def norm(node: fx.Node) -> DimMap:
    """Layer and RMS norm: mix the last dimensions, as many as ``normalized_shape`` has."""
    x = operands(node)[0]
    assert x is not None
    rank = len(shape_of(x))
    normalized = len(argument(node, "normalized_shape"))
    output = {(0, dim): dim for dim in range(rank)}
    for index, weight in enumerate(operands(node)[1:], 1):
        if weight is not None:
            output |= {(index, dim): rank - normalized + dim for dim in range(normalized)}
    return finished(node, output, {(0, dim) for dim in range(rank - normalized, rank)})


def matmul(node: fx.Node) -> DimMap:
    a, b = operands(node)
    assert a is not None
    assert b is not None
    left = "... n c" if len(shape_of(a)) > 1 else "c"
    right = "... c m" if len(shape_of(b)) > 1 else "c"
    kept = " ".join(axis for axis in ("...", "n", "m") if axis in left.split() + right.split())
    return pattern(f"{left}, {right} -> {kept}")(node)


def einsum(node: fx.Node) -> DimMap:
    equation = argument(node, "equation").replace(" ", "")
    inputs, _, output = equation.partition("->")
    if "->" not in equation or "." in equation or any(len(set(part)) < len(part) for part in inputs.split(",")):
        return mixes_everything(node)
    return pattern(f"{', '.join(' '.join(part) for part in inputs.split(','))} -> {' '.join(output)}")(node)


def reshape(node: fx.Node) -> DimMap:
    """A dimension stays where the elements before it and in it are the same in both shapes; it may not be cut."""
    x = operands(node)[0]
    assert x is not None
    return finished(node, {(0, dim): out for dim, out in kept_dimensions(shape_of(x), shape_of(node)).items()}, set())


def kept_dimensions(shape: Sequence[Any], out_shape: Sequence[Any]) -> dict[int, int]:
    """Equal dimensions of a row-major tensor before and after `view`.

    ``(2, 5, 12), (2, 5, 3, 4) -> {0: 0, 1: 1}``. Dimensions of size 1 move nothing and pair where they stand.
    """
    before = [(dim, expression(size)) for dim, size in enumerate(shape)]
    after = [(dim, expression(size)) for dim, size in enumerate(out_shape)]
    # Walking from either end finds what a symbolic size in the middle hides from the other.
    kept = dict(walk(before, after))
    for dim, out in walk(before[::-1], after[::-1]):
        if dim not in kept and out not in kept.values():
            kept[dim] = out
    return kept


def walk(before: list[tuple[int, sympy.Expr]], after: list[tuple[int, sympy.Expr]]) -> list[tuple[int, int]]:
    """Pair up dimensions while the products of the sizes passed so far agree."""
    pairs = []
    i = j = 0
    passed, out_passed = sympy.Integer(1), sympy.Integer(1)
    while i < len(before) and j < len(after):
        (dim, size), (out, out_size) = before[i], after[j]
        if passed == out_passed and size == out_size:
            pairs.append((dim, out))
            passed, i, out_passed, j = passed * size, i + 1, out_passed * out_size, j + 1
        elif passed == out_passed and out_size == 1:
            j += 1
        elif passed == out_passed:
            passed, i = passed * size, i + 1
        elif not (passed.is_number and out_passed.is_number):
            break
        elif passed < out_passed:
            passed, i = passed * size, i + 1
        else:
            out_passed, j = out_passed * out_size, j + 1
    return pairs


def moved(order: Callable[[fx.Node, int], Sequence[int | None]]) -> Callable[[fx.Node], DimMap]:
    """``order(node, rank)`` gives the input dimension at each output dimension, None where a new one stands."""

    def rule(node: fx.Node) -> DimMap:
        x = operands(node)[0]
        assert x is not None
        dims = order(node, len(shape_of(x)))
        return finished(node, {(0, dim): out for out, dim in enumerate(dims) if dim is not None}, set())

    return rule


def transposed(node: fx.Node, rank: int) -> list[int | None]:
    order: list[int | None] = list(range(rank))
    a, b = argument(node, "dim0") % rank, argument(node, "dim1") % rank
    order[a], order[b] = b, a
    return order


def unsqueezed(node: fx.Node, rank: int) -> list[int | None]:
    order: list[int | None] = list(range(rank))
    order.insert(argument(node, "dim") % (rank + 1), None)
    return order


def squeezed(node: fx.Node, rank: int) -> list[int | None]:
    x = operands(node)[0]
    assert x is not None
    dims = argument(node, "dim")
    dims = {dim % rank for dim in ([dims] if isinstance(dims, int) else dims)}
    return [dim for dim in range(rank) if dim not in dims or not same_size(shape_of(x)[dim], 1)]


def selected(node: fx.Node, rank: int) -> list[int | None]:
    return [dim for dim in range(rank) if dim != argument(node, "dim") % rank]


def except_along(name: str = "dim") -> Callable[[fx.Node], DimMap]:
    """Every dimension of every operand stays but the one the argument ``name`` gives, which is cut or joined."""

    def rule(node: fx.Node) -> DimMap:
        rank = len(shape_of(node))
        output = {
            (index, dim): dim
            for index, operand in enumerate(operands(node))
            for dim in range(len(shape_of(operand)) if operand is not None else 0)
            if dim != argument(node, name) % rank
        }
        return finished(node, output, set())

    return rule


def sliced(node: fx.Node) -> DimMap:
    x = operands(node)[0]
    assert x is not None
    whole = all(same_size(a, b) for a, b in zip(shape_of(x), shape_of(node))) and argument(node, "step") == 1
    return pointwise(node) if whole else except_along()(node)


def taken(node: fx.Node) -> DimMap:
    """One of an operator's values: its dimensions are those that the operator kept, not the one it cut."""
    (values,) = operands(node)
    assert values is not None
    return finished(node, {(0, dim): dim for dim in dim_map(values).output.values()}, set())


# ---------------------------------------------------------------------------------------------------- the table

RULES: dict[Any, Callable[[fx.Node], DimMap]] = {
    # contractions
    aten.linear.default: pattern("... c, o c, o? -> ... o"),
    aten.mm.default: pattern("n c, c o -> n o"),
    aten.bmm.default: pattern("b n c, b c m -> b n m"),
    aten.addmm.default: pattern("n m, n c, c m -> n m"),
    aten.baddbmm.default: pattern("b n m, b n c, b c m -> b n m"),
    aten.matmul.default: matmul,
    aten.einsum.default: einsum,
    aten.scaled_dot_product_attention.default: pattern("... n c, ... m c, ... m v, ... n m? -> ... n v"),
    aten.embedding.default: pattern("v c, ... -> ... c"),
    # along channels
    aten.layer_norm.default: norm,
    aten.rms_norm.default: norm,
    aten.softmax.int: along("dim"),
    aten._softmax.default: along("dim"),
    aten.log_softmax.int: along("dim"),
    aten._log_softmax.default: along("dim"),
    aten.cumsum.default: along("dim"),
    aten.sum.dim_IntList: along("dim", keeps=False),
    aten.mean.dim: along("dim", keeps=False),
    aten.amax.default: along("dim", keeps=False),
    aten.amin.default: along("dim", keeps=False),
    aten.var.correction: along("dim", keeps=False),
    aten.any.dim: along("dim", keeps=False),
    # shapes
    aten.view.default: reshape,
    aten.reshape.default: reshape,
    aten._unsafe_view.default: reshape,
    aten.permute.default: moved(lambda node, rank: [dim % rank for dim in argument(node, "dims")]),
    aten.transpose.int: moved(transposed),
    aten.unsqueeze.default: moved(unsqueezed),
    aten.squeeze.dim: moved(squeezed),
    aten.squeeze.dims: moved(squeezed),
    aten.select.int: moved(selected),
    aten.expand.default: pointwise,
    aten.slice.Tensor: sliced,
    aten.cat.default: except_along(),
    aten.split.Tensor: except_along(),
    aten.split_with_sizes.default: except_along(),
    # copies that PyTorch does not tag as pointwise
    aten._to_copy.default: pointwise,
    aten.clone.default: pointwise,
    aten.copy.default: pointwise,
}
# `cat` and the cuts mix the dimension they join or cut; `linear` keeps "n" inside its "...".


def dim_map(node: fx.Node) -> DimMap:
    """What ``node`` does to dimensions; an operator without a rule mixes everything."""
    if node.target is operator.getitem:
        return taken(node)
    if node.op != "call_function" or not hasattr(node.target, "_schema"):
        return DimMap()
    rule = RULES.get(node.target)
    if rule is None:
        rule = pointwise if torch.Tag.pointwise in node.target.tags else mixes_everything  # type: ignore[union-attr]
    return rule(node)


def has_rule(node: fx.Node) -> bool:
    """Whether the operator's effect on dimensions is known, rather than assumed to be mixing everything."""
    return node.target in RULES or torch.Tag.pointwise in getattr(node.target, "tags", ())

"""What a rule reads of a node: its operands, its other arguments, and sizes that may be symbolic."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import fx

Place = tuple[int, int]
"""(operand, dimension)"""


@dataclass(frozen=True)
class Parameter:
    """One argument of an operator's schema: whether it is a tensor, or a list of these.

    Attributes:
        is_shared: whether a result may be in its memory, or it is written. is_written: whether it is.
    """

    name: str
    default: Any
    is_tensor: bool
    is_list: bool
    is_shared: bool
    is_written: bool


@cache
def parameters(operator: Any) -> tuple[Parameter, ...]:
    """Those of an operator with a schema, which takes longer to ask than most rules."""
    kinds = [str(own.type) for own in operator._schema.arguments]
    return tuple(
        Parameter(
            own.name,
            own.default_value,
            is_tensor=kind in ("Tensor", "Optional[Tensor]"),
            is_list="List[" in kind and "Tensor" in kind,
            is_shared=own.alias_info is not None,
            is_written=own.is_write,
        )
        for own, kind in zip(operator._schema.arguments, kinds)
    )


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
    for place, argument in enumerate(parameters(node.target)):
        given = place < len(args) or argument.name in kwargs
        value = args[place] if place < len(args) else kwargs.get(argument.name, argument.default)
        if argument.is_list:
            value = [change(next(numbers), item) for item in value or ()]
        elif argument.is_tensor or (isinstance(value, fx.Node) and is_tensor(value)):
            # A number in place of a tensor, ``add(x, 1)``, is no operand but has an operand's place.
            changed = change(next(numbers), value if isinstance(value, fx.Node) else None)
            value = changed if isinstance(value, fx.Node) else value
        if place < len(args):
            args[place] = value
        elif given:
            kwargs[argument.name] = value
    return tuple(args), kwargs


def argument(node: fx.Node, name: str) -> Any:
    """The value of the operator's argument ``name``, its default included."""
    place, own = next((place, own) for place, own in enumerate(parameters(node.target)) if own.name == name)
    return node.args[place] if place < len(node.args) else node.kwargs.get(name, own.default)


def is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), torch.Tensor)


def shape_of(node: fx.Node | None) -> tuple[Any, ...]:
    """Shape of a node's value, of the first for an operator with several."""
    value = None if node is None else node.meta.get("val")
    if isinstance(value, (tuple, list)):
        value = next((item for item in value if isinstance(item, torch.Tensor)), None)
    return tuple(value.shape) if isinstance(value, torch.Tensor) else ()


def same_size(a: Any, b: Any) -> bool:
    """Whether two sizes are equal as expressions; asks nothing of symbolic ones."""
    return bool(expression(a) == expression(b))


def same_sizes(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(same_size(one, other) for one, other in zip(a, b))


def expression(size: Any) -> Any:
    """A size as an expression of sympy, which compares and multiplies without asking anything of symbols."""
    if isinstance(size, torch.SymInt):
        return size.node.expr
    # Half a second, which the first capture takes anyway.
    import sympy

    return sympy.Integer(size)

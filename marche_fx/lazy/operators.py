"""Operators that compute each row of a late result alone, as the passes' rule table proves: they are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx

from ..passes.graph.operands import operands
from ..passes.rules.dim_map import DimMap
from ..passes.rules.table import RULES, dim_map, is_pointwise
from .choices import chosen_rows, joined_rows
from .computed import Operated, Operation
from .expressions import Expression
from .geometry import Frame, Geometry
from .moves import MOVES
from .operands import Looked, Place, placed
from .trees import key_of, mapped

MOST_KNOWN = 4096
"""Plans, and shapes of views, that are remembered."""

HELD = object()
"""Stands for a tensor among an operator's arguments."""


@dataclass(frozen=True)
class Shape:
    """What is known of a tensor among an operator's arguments before it runs.

    Attributes:
        rows: dimensions along which it is of different rows of a late result. fixed: dimensions along which it is of
            different channels; both None for a tensor that is there.
    """

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    rows: tuple[int, ...] | None = None
    fixed: tuple[int, ...] | None = None

    @classmethod
    def of(cls, leaf: Tensor | Looked) -> Shape:
        if isinstance(leaf, Tensor):
            return cls(tuple(leaf.shape), leaf.stride(), leaf.dtype)
        return cls.of_view(leaf.geometry)

    @classmethod
    @lru_cache(MOST_KNOWN)
    def of_view(cls, geometry: Geometry) -> Shape:
        like = geometry.like
        fixed = tuple(dim for dim, stride in enumerate(geometry.channels.stride()) if stride)
        return cls(tuple(like.shape), like.stride(), like.dtype, geometry.row_dims, fixed)

    def stand_in(self) -> Tensor:
        return torch.empty_strided(self.size, self.stride, dtype=self.dtype, device="meta")


@dataclass(frozen=True)
class Template:
    """An operator and its arguments, `HELD` in place of each tensor."""

    function: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def filled(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        own = iter(tensors)
        args, kwargs = mapped(lambda leaf: next(own) if leaf is HELD else leaf, (self.args, self.kwargs))
        return args, kwargs

    def __call__(self, tensors: Sequence[Any]) -> Any:
        args, kwargs = self.filled(tensors)
        return self.function(*args, **kwargs)


@dataclass(frozen=True)
class Plan:
    """How an operator computes rows.

    Attributes:
        template: the operator and its other arguments. values: what it gives, without values. frame: of the first of
            these. frames: of each. places: where each tensor among its arguments has the rows.
    """

    template: Template
    values: tuple[Tensor, ...]
    is_one: bool
    frame: Frame
    frames: tuple[Frame, ...]
    places: tuple[Place, ...]


def recorded(
    function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Expression | tuple[Expression, ...] | None:
    """What an operator gives, of arguments among which some are `Looked`; None where it mixes rows."""
    tensors: list[Tensor | Looked] = []
    key = function, key_of((args, kwargs), (Tensor, Looked), tensors)
    if function is torch.ops.aten.cat.default:
        joined = joined_rows(tensors, *args[1:], **kwargs)
        if joined is not None:
            return joined
    if function in MOVES and isinstance(args[0], Looked):
        moved = MOVES[function](*args, **kwargs)
        if moved is not None:
            return moved
    plan = plan_of(key, args, kwargs, tuple([Shape.of(leaf) for leaf in tensors]))
    if plan is None:
        return None
    chosen = chosen_rows(function, args, kwargs, tensors, plan.values[0], plan.frame, plan.places)
    if chosen is not None:
        return chosen
    device = next(leaf.expression.device for leaf in tensors if isinstance(leaf, Looked))
    own = tuple(placed(leaf, place) for leaf, place in zip(tensors, plan.places))
    operation = Operation(plan.template, own, plan.frame)
    found = tuple(
        Operated(value, frame, device, operation, None if plan.is_one else number)
        for number, (value, frame) in enumerate(zip(plan.values, plan.frames))
    )
    return found[0] if plan.is_one else found


UNKNOWN: Any = object()

KNOWN: dict[Any, Plan | None] = {}
"""Plans by operator and shapes, so that a loop's later steps only look them up."""


def plan_of(key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], shapes: tuple[Shape, ...]) -> Plan | None:
    """The plan of an operator, from a loop's earlier steps if it is known.

    Args:
        key: equal for operators that do the same to tensors of the same shapes.
    """
    try:
        known = KNOWN.get((key, shapes), UNKNOWN)
    except TypeError:
        # An argument without a hash.
        return found_plan(template_of(key[0], args, kwargs), shapes)
    if known is not UNKNOWN:
        return known
    if len(KNOWN) >= MOST_KNOWN:
        KNOWN.clear()
    return KNOWN.setdefault((key, shapes), found_plan(template_of(key[0], args, kwargs), shapes))


def template_of(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Template:
    return Template(
        function, *mapped(lambda leaf: HELD if isinstance(leaf, (Tensor, Looked)) else leaf, (args, kwargs))
    )


def is_known(function: Any) -> bool:
    """Whether there is a rule for an operator, and its shape does not depend on values."""
    tags = getattr(function, "tags", ())
    by_values = torch.Tag.dynamic_output_shape in tags or torch.Tag.data_dependent_output in tags
    return not by_values and (function in RULES or is_pointwise(function))


def found_plan(template: Template, shapes: Sequence[Shape]) -> Plan | None:
    if not is_known(template.function):
        return None
    try:
        value = template([own.stand_in() for own in shapes])
    except NotImplementedError:
        # It looks at values, which nobody knows yet.
        return None
    values = (value,) if isinstance(value, Tensor) else value
    if not isinstance(values, (tuple, list)) or not all(isinstance(own, Tensor) for own in values):
        return None
    graph = fx.Graph()
    nodes = [graph.placeholder(f"operand_{number}") for number in range(len(shapes))]
    for own, shape in zip(nodes, shapes):
        own.meta["val"] = shape.stand_in()
    node = graph.call_function(template.function, *template.filled(nodes))
    node.meta["val"] = value
    rule, order = dim_map(node), operands(node)
    numbers = [order.index(own) for own in nodes]
    rows = rows_of(rule, [(number, shape) for number, shape in zip(numbers, shapes) if shape.rows])
    if not rows or any(own.ndim != values[0].ndim for own in values):
        return None
    if any(own.shape[dim] != values[0].shape[dim] for own in values for dim in rows):
        return None
    frame = Frame(values[0].shape, rows)
    places = [place_of(rule, number, shape, frame) for number, shape in zip(numbers, shapes)]
    if any(own is None for own in places):
        return None
    found = tuple(own for own in places if own is not None)
    frames = tuple(Frame(own.shape, rows) for own in values)
    return Plan(template, tuple(values), isinstance(value, Tensor), frame, frames, found)


def rows_of(rule: DimMap, late: Sequence[tuple[int, Shape]]) -> tuple[int, ...]:
    """The dimensions of an operator's value that are rows of its late operands; none where some are gone."""
    found = set()
    for number, shape in late:
        for dim in shape.rows or ():
            if (number, dim) not in rule.output:
                return ()
            found.add(rule.output[number, dim])
    return tuple(sorted(found))


def place_of(rule: DimMap, number: int, shape: Shape, frame: Frame) -> Place | None:
    """Where an operand has the rows of an operator's value; None where its rows cannot be taken alone."""
    at = {rule.output[number, dim]: dim for dim in range(len(shape.size)) if (number, dim) in rule.output}
    dims = tuple(at[out] if out in at and shape.size[at[out]] > 1 else None for out in frame.dims)
    for dim in dims:
        if dim is not None and (not rule.is_token_wise(number, dim) or dim in (shape.fixed or ())):
            return None
    along = dims[-1] if dims else None
    if along is None:
        # It has one position there; operands broadcast from the right.
        right = frame.dims[-1] - (len(frame.shape) - len(shape.size))
        along = right if 0 <= right < len(shape.size) and shape.size[right] == 1 else None
    is_one = all(dim is None for dim in dims)
    return Place(dims, along) if is_one or along is not None else None

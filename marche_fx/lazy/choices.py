"""Operators that take whole rows from one operand or another: what is not taken is not computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .computed import Chosen, Written
from .expressions import Blank, Expression
from .geometry import Frame, Geometry
from .operands import Looked, Operand, Place, Plain, placed

aten = torch.ops.aten

CHOICES: dict[Any, Callable[[Any, Any, Any], tuple[Any, Any, Any]]] = {
    **dict.fromkeys(
        (aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.Scalar),
        lambda mask, one, other: (mask, one, other),
    ),
    **dict.fromkeys((aten.masked_fill.Scalar, aten.masked_fill.Tensor), lambda other, mask, one: (mask, one, other)),
}
"""By operator its mask, what it gives where that is true, and what elsewhere."""


def chosen_rows(
    function: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    tensors: Sequence[Tensor | Looked],
    like: Tensor,
    frame: Frame,
    places: Sequence[Place],
) -> Expression | None:
    """``where(mask, one, other)`` whose mask is of rows; None for any other operator.

    Args:
        tensors: among the arguments, in their order. like, frame: of the value. places: of each tensor.
    """
    if function not in CHOICES:
        return None
    mask, *sides = CHOICES[function](*args, **kwargs)
    by_id = {id(leaf): place for leaf, place in zip(tensors, places)}
    device = next(leaf.expression.device for leaf in tensors if isinstance(leaf, Looked))

    def side(leaf: Any) -> Operand:
        if isinstance(leaf, (Tensor, Looked)):
            return placed(leaf, by_id[id(leaf)])
        return Plain(torch.tensor(leaf, dtype=like.dtype, device=device), NOWHERE)

    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        return None
    own = by_id[id(mask)]
    if any(size > 1 and dim not in own.dims for dim, size in enumerate(mask.shape)):
        # It tells channels of a row apart.
        return None
    one, other = (side(leaf) for leaf in sides)
    return Chosen(like, frame, device, placed(mask, own), one, other)


NOWHERE = Place((), None)
"""Of an operand without rows."""


def joined_rows(parts: Sequence[Tensor | Looked], dim: int = 0) -> Expression | None:
    """``cat`` along rows; None where it is along channels."""
    looks = [part.geometry.like if isinstance(part, Looked) else part.to("meta") for part in parts]
    like = torch.cat(looks, dim)
    dim %= like.ndim
    late = [part for part in parts if isinstance(part, Looked)]
    dims = {own for part in late for own in part.geometry.frame.dims}
    if dims and dim < min(dims) and all(part.geometry.like.shape[dim] == 1 for part in late):
        # Samples one by one.
        dims.add(dim)
    if dim not in dims:
        return None
    if any(part.geometry.like.shape[own] > 1 and part.geometry.channels.stride(own) for part in late for own in dims):
        return None
    device, frame = late[0].expression.device, Frame(like.shape, tuple(sorted(dims)))
    whole = Geometry.whole(like, frame)
    found: Expression = Blank(like, frame, device)
    start = 0
    for part, own in zip(parts, looks):
        size = own.shape[dim] if own.ndim == like.ndim else 0
        if size:
            slot = whole.narrowed(dim, start, size)
            place = Place(slot.frame.dims, slot.frame.dims[-1] if slot.frame.dims else None)
            found = Written(found, slot.numbers(), slot, placed(part, place), slot.frame)
        start += size
    return found

"""Operators that put whole rows elsewhere, and others between them: only those that are read are computed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .choices import NOWHERE, joined_rows
from .computed import Written
from .expressions import Blank, Expression
from .geometry import Frame, Geometry
from .operands import Looked, Place, Plain, placed

aten = torch.ops.aten


def flipped(own: Looked, dims: Sequence[int]) -> Expression | None:
    like = aten.flip.default(own.geometry.like, dims)
    frame = Frame(like.shape, own.geometry.frame.dims)
    turned = {dim % like.ndim for dim in dims if like.shape[dim] > 1}
    if not turned or not turned <= set(frame.dims):
        return None
    numbers = torch.arange(frame.count).view(frame.sizes).flip([frame.dims.index(dim) for dim in turned]).reshape(-1)
    whole = Geometry.whole(like, frame)
    value = placed(own, Place(frame.dims, frame.dims[-1]))
    return Written(Blank(like, frame, own.expression.device), numbers, whole, value, frame)


def rolled(own: Looked, shifts: Sequence[int], dims: Sequence[int] = ()) -> Expression | None:
    like = own.geometry.like
    # Without dimensions rows are joined with channels.
    if not dims or len(shifts) != len(dims) or not {dim % like.ndim for dim in dims} <= set(own.geometry.frame.dims):
        return None
    found: Expression | None = None
    for shift, dim in zip(shifts, dims):
        looked, size = own if found is None else Looked.all_of(found), like.shape[dim]
        start = -shift % size
        found = joined_rows([part(looked, dim, start, size - start), part(looked, dim, 0, start)], dim)
        if found is None:
            return None
    return found


def repeated(own: Looked, repeats: Sequence[int]) -> Expression | None:
    if len(repeats) != own.geometry.like.ndim or min(repeats) < 1:
        return None
    found: Expression | None = None
    for dim, count in enumerate(repeats):
        if count > 1:
            found = joined_rows([own if found is None else Looked.all_of(found)] * count, dim)
            if found is None:
                return None
    return found


def padded(own: Looked, pads: Sequence[int], value: float = 0) -> Expression | None:
    like = aten.constant_pad_nd.default(own.geometry.like, pads, value)
    frame, geometry = Frame(like.shape, own.geometry.frame.dims), own.geometry
    inside = Geometry.whole(like, frame)
    for number, (before, after) in enumerate(zip(pads[::2], pads[1::2])):
        dim = like.ndim - 1 - number
        if not before and not after:
            continue
        if dim not in frame.dims:
            return None
        # A negative padding cuts rows off.
        kept = geometry.like.shape[dim] + min(before, 0) + min(after, 0)
        geometry = geometry.narrowed(dim, max(-before, 0), kept)
        inside = inside.narrowed(dim, max(before, 0), kept)
    if not inside.like.numel():
        return None
    filling = Plain(torch.tensor(value, dtype=like.dtype, device=own.expression.device), NOWHERE)
    blank, whole = Blank(like, frame, own.expression.device), Geometry.whole(like, frame)
    filled = Written(blank, None, whole, filling, frame)
    dims = inside.frame.dims
    value_inside = placed(Looked(own.expression, geometry), Place(dims, dims[-1] if dims else None))
    return Written(filled, inside.numbers(), inside, value_inside, inside.frame)


def part(own: Looked, dim: int, start: int, size: int) -> Looked:
    return Looked(own.expression, own.geometry.narrowed(dim, start, size))


MOVES: dict[Any, Callable[..., Expression | None]] = {
    aten.flip.default: flipped,
    aten.roll.default: rolled,
    aten.repeat.default: repeated,
    aten.constant_pad_nd.default: padded,
}
"""By operator what it makes of a value; None where it moves other things than rows."""

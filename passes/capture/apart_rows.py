"""Whether a function treats rows apart, as far as calls of it with others, and with fewer, can tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference that rounding explains, relative to the largest element of a result."""

ROUNDED_ELSEWHERE = 0.05
"""In a call with fewer rows products may round otherwise, so that a router chooses between near experts the other one:
for so many rows at most."""

Function = Callable[..., Sequence[Tensor]]
"""``(*rows [*L, D]) -> results``, ``[*L, W]`` each or with L as one dimension."""


def check_rows_are_apart(function: Function, rows: Sequence[Tensor]) -> str:
    """Why a function's results are not a row of each row alone; empty where no call tells that.

    Called with half of the rows, with one, and with half of them replaced by others: rows that stay must give what they
    gave, nearly all of them where there are fewer. Of results that are no floats, such as numbers of experts, too.

    Args:
        rows: of floating point.
    """
    lead = rows[0].shape[:-1]
    if math.prod(lead) < 2:
        return "is called with a single token, which cannot tell whether it reads others; begin with more"
    results = [whole(own, lead) for own in function(*rows)]
    generator = torch.Generator().manual_seed(0)
    for dim in (dim for dim, size in enumerate(lead) if size > 1):
        order = torch.randperm(lead[dim], generator=generator).to(rows[0].device)
        for kept in (order[: len(order) // 2], order[:1]):
            fewer = [own.index_select(dim, kept) for own in rows]
            sizes = fewer[0].shape[:-1]
            found = [whole(own, sizes) for own in function(*fewer)]
            why = difference(found, [own.index_select(dim, kept) for own in results], share=ROUNDED_ELSEWHERE)
            if why:
                return f"gives other results for {len(kept)} of {lead[dim]} tokens alone than for all: {why}"
    order = torch.randperm(math.prod(lead), generator=generator).to(rows[0].device)
    moved, kept = order[: len(order) // 2], order[len(order) // 2 :]
    expected = [own.flatten(0, -2)[kept] for own in results]
    # Others of about their size; and no numbers, which what mixes them ever so little makes no number of.
    for change in (lambda own: own.roll(1, 0) - own.flip(0), lambda own: torch.full_like(own, float("nan"))):
        others = [with_others(own, moved, change) for own in rows]
        why = difference([whole(own, lead).flatten(0, -2)[kept] for own in function(*others)], expected)
        if why:
            return f"gives other results for a token where other tokens are others: {why}"
    return ""


def with_others(rows: Tensor, moved: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    flat = rows.flatten(0, -2)
    return flat.index_copy(0, moved, change(flat[moved])).view(rows.shape)


def whole(result: Tensor, lead: torch.Size) -> Tensor:
    return result.reshape(*lead, result.shape[-1])


def difference(found: Sequence[Tensor], expected: Sequence[Tensor], *, share: float = 0.0) -> str:
    """By how much results differ where that is more than rounding, in more than this share of their rows."""
    for own, other in zip(found, expected, strict=True):
        if own.dtype != other.dtype or own.shape != other.shape:
            return f"{own.dtype} {list(own.shape)} for {other.dtype} {list(other.shape)}"
        # As numbers of experts, to which no rounding belongs.
        finite, tolerance = other[other.isfinite()], TOLERANCE.get(other.dtype, 0.1) * other.is_floating_point()
        bound = tolerance * float(finite.abs().max()) if tolerance and finite.numel() else 0.0
        same = (own == other) | (own.isnan() & other.isnan())
        # What is no number is farther away than any.
        apart = torch.where(same, 0.0, (own.double() - other.double()).abs()).nan_to_num(nan=float("inf"))
        if float((apart > bound).any(-1).double().mean()) > share:
            return f"up to {float(apart.max()):.3g}, more than the {bound:.3g} that rounding explains"
    return ""

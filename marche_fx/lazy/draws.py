"""New values as large as a late result, random ones among them: drawn at once, for all rows, as the original draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .expressions import Expression, Given
from .geometry import Frame
from .operands import Looked
from .operators import recorded

aten = torch.ops.aten

LIKE = (
    *(aten.empty_like.default, aten.zeros_like.default, aten.ones_like.default, aten.full_like.default),
    *(aten.rand_like.default, aten.randn_like.default),
)
"""Functions that make a tensor of a late result's shape; what they make is likely to meet it again."""

FILLS = ("bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_")
"""Functions that write random numbers over what was there."""


def made_like(function: Any, own: Looked, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | Given:
    """A tensor of the shape of a late one, with its rows if it is wide as well.

    A tensor of flags or numbers is what a loop writes by position and indexes by, so it stays a tensor.
    """
    value: Tensor = function(empty(own), *args, **kwargs)
    is_wide = value.is_floating_point() and own.geometry.like.is_floating_point()
    return Given(value, Frame(value.shape, own.geometry.row_dims)) if is_wide else value


def empty(own: Looked) -> Tensor:
    """A tensor like it whose values mean nothing."""
    like = own.geometry.like
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=own.expression.device)


def multinomial(
    own: Looked, count: int, replacement: bool = False, *, generator: torch.Generator | None = None
) -> Expression | tuple[Expression, ...] | None:
    """``torch.multinomial`` of rows, which draws an exponential number for each element and takes the largest ratios.

    None where PyTorch draws in another way.
    """
    if own.geometry.frame.dims != (0,) or own.geometry.like.ndim != 2 or (replacement and count > 1):
        return None
    noise = torch.empty_like(own.geometry.like, device=own.expression.device).exponential_(1, generator=generator)
    ratios = recorded(aten.div.Tensor, (own, noise), {})
    if not isinstance(ratios, Expression):
        return None
    looked = Looked.all_of(ratios)
    if count == 1:
        return recorded(aten.argmax.default, (looked, -1, True), {})
    found = recorded(aten.topk.default, (looked, count), {})
    return found[1] if isinstance(found, tuple) else None

"""Samples doubled inside a step, as for guidance, and what becomes of the two."""

from __future__ import annotations

import torch
from torch import Tensor


def doubled(kind: str, x: Tensor, dim: int) -> Tensor:
    """Twice the samples of ``x``, which are its dimension ``dim``."""
    if kind == "cat":
        return torch.cat([x, x * 0.5 if x.is_floating_point() else x], dim)
    if kind == "repeat":
        return x.repeat([2 if own == dim else 1 for own in range(x.ndim)])
    if kind == "interleave":
        return x.repeat_interleave(2, dim)
    return x.unsqueeze(dim).expand([2 if own == dim else -1 for own in range(x.ndim + 1)]).flatten(dim, dim + 1)


def guided(kind: str, x: Tensor, dim: int) -> Tensor:
    """What two copies give together."""
    if kind == "interleave":
        conditional, other = x.unflatten(dim, (-1, 2)).unbind(dim + 1)
    else:
        conditional, other = x.chunk(2, dim)
    return other + 2 * (conditional - other)

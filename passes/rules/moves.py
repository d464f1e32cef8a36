"""Operators that compute nothing."""

from __future__ import annotations

import operator

import torch

from .reshapes import RESHAPES

aten = torch.ops.aten

MOVES = (
    *RESHAPES,
    aten.permute.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.squeeze.dims,
    aten.squeeze.dim,
    aten.clone.default,
)
"""Operators that keep every element and move it."""

REPEATS = (aten.expand.default, aten.repeat.default)
"""Operators that repeat elements."""

MOVES_TOKENS = (*MOVES, *REPEATS, aten.cat.default, aten.slice.Tensor, aten.select.int, operator.getitem)
"""Operators that put rows elsewhere, join them to others or leave some out."""

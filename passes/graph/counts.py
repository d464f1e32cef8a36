"""What symbols without a value were in the real call before a trace: the numbers of rows that it picked by values."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch

FOUND: WeakKeyDictionary[Any, dict[Any, int]] = WeakKeyDictionary()
"""Of the environment of symbols of a trace, what each was in the real call before it."""


def counted(size: torch.SymInt) -> int | None:
    """What a size without a value was in the real call; None where that is not known."""
    known = FOUND.get(size.node.shape_env, {})
    expression = size.node.expr
    if not expression.free_symbols <= known.keys():
        return None
    return int(expression.xreplace(known))

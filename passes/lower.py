"""Hand the rewritten step to `torch.compile`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .split import Split

Incremental = Callable[..., tuple[Tensor, ...]]
"""``(samples, *active, *queried, *inputs, *caches) -> signals``"""


def lower(split: Split, *, compile: bool) -> Incremental:
    """The rewritten region as a function; compiled once for any number of active tokens A >= 2."""
    module = split.incremental.module
    if not compile:
        return module
    compiled = torch.compile(module, dynamic=False)
    ragged = 2 * len(split.queried)

    def run(samples: Tensor, *tensors: Tensor) -> Any:
        # Marked on every call: the tensors are new each time.
        for positions in tensors[:ragged]:
            torch._dynamo.mark_dynamic(positions, 1)
        return compiled(samples, *tensors)

    return run

"""Operators that read the results of several calls, of which a later one writes the caches of an earlier one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx.lazy.tensor import resolved
from tests.networks import Transformer

Read = Callable[[Tensor, Tensor], Any]

READS: dict[str, Read] = {
    "guidance": lambda guided, free: guided - free,
    "lerp": lambda guided, free: torch.lerp(free, guided, 2.0),
    "cat": lambda guided, free: torch.cat([guided, free]),
    "matmul": lambda guided, free: guided @ free.transpose(1, 2),
    "dist": torch.dist,
    "allclose": torch.allclose,
    "out": lambda guided, free: torch.add(guided, free, out=torch.empty(2, 30, 16)),
}


@pytest.mark.parametrize("refresh", ["exact", None])
@pytest.mark.parametrize("read", READS)
def test_results_that_are_read_together_are_each_of_its_own_call(read: str, refresh: Any) -> None:
    torch.manual_seed(0)
    model = Transformer(30, 16, 2).eval().requires_grad_(False)
    optimized = marche_fx.transform(model, refresh=refresh, compile=False)
    x, other = torch.randn(2, 2, 30, 16)
    with marche_fx.decoding(optimized):
        for _ in range(3):
            found = READS[read](optimized(x), optimized(other))
            expected = READS[read](model(x), model(other))
            torch.testing.assert_close(resolved(found), expected)

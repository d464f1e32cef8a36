"""Whatever PyTorch's default dtype is, and the model's: what the library makes itself has a dtype of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx import (
    DriftRefresh,
    InterleavedRefresh,
    Monitor,
    NeighbourRefresh,
    RandomRefresh,
    RefreshPolicy,
    SelectiveRefresh,
    StalenessRefresh,
)
from tests.networks import CausalAttention, Transformer

POLICIES = [
    SelectiveRefresh(0.2, warmup=1),
    SelectiveRefresh(0.2, warmup=1, age=False),
    DriftRefresh(0.2, warmup=1),
    NeighbourRefresh(0.2, warmup=1, grid=(5, 8)),
    RandomRefresh(0.2, warmup=1),
    StalenessRefresh(0.2, warmup=1),
    InterleavedRefresh(3, warmup=1),
]


@pytest.fixture(params=[torch.bfloat16, torch.float16, torch.float64])
def default_dtype(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


def rows_of(model: Transformer, policy: RefreshPolicy, xs: list[Tensor]) -> list[Tensor]:
    optimized = marche_fx.transform(model, refresh=policy, compile=False, monitor=Monitor(2))
    with marche_fx.decoding(optimized):
        return [optimized(x)[:, 3 * step : 3 * step + 3].clone() for step, x in enumerate(xs)]


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@pytest.mark.parametrize("own", [torch.float32, torch.float64])
@torch.no_grad()
def test_a_default_dtype_changes_no_choice(policy: RefreshPolicy, own: torch.dtype, default_dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    xs = [torch.randn(2, 40, 16, generator=generator, dtype=torch.float32).to(own)]
    for _ in range(5):
        xs.append(xs[-1] + 0.01 * torch.randn(2, 40, 16, generator=generator, dtype=torch.float32).to(own))
    found = []
    for dtype in (default_dtype, torch.float32):
        torch.set_default_dtype(torch.float32)
        torch.manual_seed(0)
        model = Transformer(40, 16, 2, attention=CausalAttention).to(own).eval()
        torch.set_default_dtype(dtype)
        found.append(rows_of(model, policy, xs))
    for one, other in zip(*found):
        assert one.dtype is own
        assert torch.equal(one, other)

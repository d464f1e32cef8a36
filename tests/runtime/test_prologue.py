"""What no step changes is computed once in a session."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import marche_fx
from marche_fx import FullRefresh

aten = torch.ops.aten


class Captioned(nn.Module):
    """Attention among tokens, then to a text context."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.own, self.query, self.context = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + F.scaled_dot_product_attention(self.own(x), x, x)
        k = self.context(context)
        return x + F.scaled_dot_product_attention(self.query(x), k, k)


class CountRows(TorchDispatchMode):
    """Counts the products with so many rows."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is aten.addmm.default and args[1].shape[0] == self.rows
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def test_keys_of_a_context_are_computed_once_until_it_changes() -> None:
    torch.manual_seed(0)
    model = Captioned().eval()
    optimized = marche_fx.transform(model, refresh=FullRefresh(), compile=False, verify=False)
    context = torch.randn(1, 7, 8)
    optimized(torch.randn(1, 20, 8), context)
    counts = []
    with marche_fx.decoding(optimized):
        for number in range(6):
            x = torch.randn(1, 20, 8)
            if number == 2:
                context.mul_(2)
            if number == 4:
                context = context.clone()
            with CountRows(rows=7) as counted:
                found = optimized(x, context).clone()
            counts.append(counted.count)
            assert torch.equal(found, model(x, context))
    assert counts == [1, 0, 1, 0, 1, 0]


@torch.no_grad()
def test_weights_written_inside_a_session_count() -> None:
    model = Captioned().eval()
    optimized = marche_fx.transform(model, refresh=FullRefresh(), compile=False)
    x, context = torch.randn(1, 20, 8), torch.randn(1, 7, 8)
    with marche_fx.decoding(optimized):
        optimized(x, context).clone()
        model.context.weight.mul_(-1)
        assert torch.equal(optimized(x, context).clone(), model(x, context))


def test_inference_tensors_are_computed_anew() -> None:
    model = Captioned().eval()
    optimized = marche_fx.transform(model, refresh=FullRefresh(), compile=False)
    with torch.inference_mode(), marche_fx.decoding(optimized):
        context = torch.randn(1, 7, 8)
        for _ in range(3):
            x = torch.randn(1, 20, 8)
            assert torch.equal(optimized(x, context).clone(), model(x, context))
            context.mul_(2)

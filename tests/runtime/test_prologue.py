"""What no step changes is computed once in a session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
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
                context = context + 1
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


class Spoken(nn.Module):
    """Tokens under a level, and a context of another length."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.time = Captioned(), nn.Linear(1, 8)

    def forward(self, x: Tensor, context: Tensor, level: Tensor) -> Tensor:
        return self.body(x + self.time(level[:, None])[:, None], context)


def through_dlpack(tensor: Tensor) -> Tensor:
    return torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(tensor))


WRITES: dict[str, Callable[[Tensor], Any]] = {
    "numpy": lambda tensor: tensor.numpy().__imul__(-2),
    "data": lambda tensor: tensor.data.mul_(-2),
    "dlpack": lambda tensor: through_dlpack(tensor).mul_(-2),
    "storage": lambda tensor: torch.empty(0).set_(tensor.untyped_storage()).mul_(-2),
    "itself": lambda tensor: tensor.mul_(-2),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_arguments_written_where_pytorch_does_not_count_are_noticed(write: str, mode: Any) -> None:
    torch.manual_seed(0)
    model = Spoken().eval()
    optimized = marche_fx.transform(model, refresh=FullRefresh(), compile=False)
    with mode(), marche_fx.decoding(optimized):
        x, context, level = torch.randn(2, 20, 8), torch.randn(2, 7, 8), torch.randn(2)
        for number in range(6):
            assert torch.equal(optimized(x, context, level).clone(), model(x, context, level))
            WRITES[write]((x, context, level)[number % 3])


@torch.no_grad()
def test_what_has_the_same_values_is_not_computed_again() -> None:
    model = Captioned().eval()
    optimized = marche_fx.transform(model, refresh=FullRefresh(), compile=False, verify=False)
    x, context = torch.randn(1, 20, 8), torch.randn(1, 7, 8)
    context[0, 0, 0] = float("nan")
    with marche_fx.decoding(optimized):
        optimized(x, context).clone()
        with CountRows(rows=7) as counted:
            optimized(x, context.clone()).clone()
    assert counted.count == 0


@torch.no_grad()
def test_large_arguments_are_told_by_object_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("marche_fx.runtime.prologue.COMPARED", 10)
    model = Captioned().eval()
    optimized = marche_fx.transform(model, refresh=FullRefresh(), compile=False, verify=False)
    x, context = torch.randn(1, 20, 8), torch.randn(1, 7, 8)
    optimized(x, context).clone()
    counts = []
    with marche_fx.decoding(optimized):
        for number in range(4):
            if number == 2:
                context = context.clone()
            if number == 3:
                context.mul_(2)
            with CountRows(rows=7) as counted:
                optimized(x + number, context).clone()
            counts.append(counted.count)
    assert counts == [1, 0, 1, 1]

"""What a step leaves in attributes, and others read there: a captured step does not, which its user is told."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from tests.around import WIDTH, Around, X, transformer

SEEN: dict[str, Any] = {"rows": torch.zeros_like(X)}


class Keeps(nn.Module):
    """Leaves a tensor in one way or another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.seen: Any = None
        self.register_buffer("rows", torch.zeros_like(X))
        self.weight, self.halved = nn.Parameter(torch.ones(WIDTH)), torch.zeros(WIDTH)
        self.table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "attribute":
            self.seen = x.softmax(-1)
        elif self.how == "list":
            self.seen = [x[:, 0]]
        elif self.how == "buffer":
            self.get_buffer("rows").copy_(x)
        elif self.how == "global":
            SEEN["rows"].copy_(x)
        elif self.how == "weight":
            self.halved = self.weight / 2
            return x * self.halved
        elif self.how == "zeros":
            self.seen = torch.zeros_like(x)
        elif self.how == "enclosed":
            own = {"seen": x.softmax(-1)}
            return next(x + 0 * value for key in ("seen",) for value in [own[key]])
        elif self.how == "table":
            if self.table is None:
                self.table = x.mean() * 0
            return x + self.table
        return x


def told(how: str, hook: Callable[..., Any] | None = None) -> list[str]:
    model = Around(lambda model, x: model.inner(model.memory(x)), memory=Keeps(how)).eval().requires_grad_(False)
    if hook is not None:
        model.get_submodule("memory").register_forward_hook(hook)
    optimized = marche_fx.transform(model, compile=False)
    with warnings.catch_warnings(record=True, action="always") as caught, torch.no_grad():
        for _ in range(2):
            with marche_fx.decoding(optimized):
                for _ in range(4):
                    optimized(X)
    return [str(own.message) for own in caught if "leaves" in str(own.message)]


@pytest.mark.parametrize(
    ("how", "where"),
    [
        ("attribute", r"'memory\.seen' \(test_left\.py:\d+\)"),
        ("list", r"'memory\.seen' \(test_left\.py:\d+\)"),
        ("buffer", r"'memory\.rows'"),
        ("global", rf"'SEEN' of {re.escape(__name__)}"),
    ],
)
def test_what_a_step_leaves_for_others_is_told_of_once_by_its_name(how: str, where: str) -> None:
    (message,) = told(how)
    assert re.search(rf"^\w+\.forward leaves what it computes in {where} in every call", message)


def test_what_a_hook_keeps_is_told_of_by_its_module() -> None:
    kept: list[Tensor] = []
    (message,) = told("nothing", lambda module, args, output: kept.append(output))
    assert "in what a hook of 'memory' keeps in every call" in message


@pytest.mark.parametrize("how", ["nothing", "weight", "zeros", "table", "enclosed"])
def test_what_is_made_of_weights_and_sizes_or_kept_once_is_not(how: str) -> None:
    assert told(how) == []


class Returns(nn.Module):
    """As the message says: the step returns what the loop reads."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = transformer()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = x.softmax(-1)
        return self.inner(seen), seen


@torch.no_grad()
def test_what_the_step_returns_instead_is_of_its_own_call() -> None:
    optimized = marche_fx.transform(Returns().eval().requires_grad_(False), compile=False)
    x = X.clone()
    with marche_fx.decoding(optimized):
        for row in range(6):
            x[:, row] += 1
            assert torch.equal(optimized(x)[1][:, : row + 1], x.softmax(-1)[:, : row + 1])

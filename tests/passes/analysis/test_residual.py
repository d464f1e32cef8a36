"""Residual branches, told by sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.passes.analysis.test_denoiser import found_in, targets

Forward = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


class Net(nn.Module):
    """Linears ``a, b, c`` for a forward of its own; a slow value ``s [R, 6]``."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.enter, self.condition, self.leave = nn.Linear(3, 6), nn.Linear(5, 6), nn.Linear(6, 3)
        self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))
        self.own = forward

    def forward(self, x: Tensor, t: Tensor, c: Tensor) -> Tensor:
        s = self.condition(c) * t[:, None]
        return self.leave(self.own(self, self.enter(x), s, t))


def plain(net: Any, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    x = x + net.b(F.silu(net.a(x)))
    return x + net.c(x)


def gated(net: Any, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return torch.tanh(s) * (net.a(x) + 1) + x


def gated_by_itself(net: Any, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    h = net.a(x)
    return x + h * h.sigmoid()


def around_all(net: Any, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    h = x + net.a(x)
    return x + net.c(h + net.b(h))


def normalised(net: Any, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    x = F.layer_norm(x + s * net.a(x), [6])
    return F.layer_norm(x - net.b(x), [6])


def no_product(net: Any, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return x + s * x.sigmoid()


def two_streams(net: Any, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return net.a(x) + net.b(x)


def of_an_earlier_one(net: Any, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    y = net.a(x)
    return y + net.b(y) * x


def broadcast(net: Any, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return x + net.a(x)[:, :1]


def halved(net: Any, x: Tensor, s: Tensor, t: Tensor) -> Tensor:
    return torch.add(x, net.a(x), alpha=0.5)


@pytest.mark.parametrize(
    ("forward", "products", "outputs"),
    [
        (plain, ["b", "c"], ["linear", "linear"]),
        (gated, ["a"], ["mul"]),
        # What is held is the output, for more than one operator reads the product.
        (gated_by_itself, [None], ["mul"]),
        # Those inside of another branch.
        (around_all, ["a", "b"], ["linear", "linear"]),
        # A difference is a sum of another kind.
        (normalised, ["a"], ["mul"]),
        (no_product, [], []),
        (two_streams, [], []),
        (of_an_earlier_one, [], []),
        (broadcast, [], []),
        (halved, [], []),
    ],
)
def test_branches_are_what_a_sum_adds_to_their_stream(
    forward: Forward, products: list[str | None], outputs: list[str]
) -> None:
    net = Net(forward)
    found = found_in(net)
    paths = {f"{name}.weight": name for name in "abc"}
    weights = found.rows.capture.weights

    def of(node: Any) -> str | None:
        return next((paths[weights[own]] for own in node.all_input_nodes if weights.get(own) in paths), None)

    assert [of(own.product) for own in found.branches] == products
    assert targets(own.output for own in found.branches) == outputs

"""A method that works row by row is captured for any number of rows."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from marche_fx import CaptureError
from marche_fx.passes.capture.any_rows import AnyRows, Size, capture_any_rows


class Method(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def captured(function: Callable[[Tensor], Tensor], x: Tensor) -> AnyRows:
    return capture_any_rows(Method(function), "forward", (x,), {}, rows=len(x))


def test_sizes_are_told_by_the_rows() -> None:
    # Six channels and six rows in one of the traces are not one number.
    def function(x: Tensor) -> Tensor:
        return torch.cat([x[: len(x) // 2], x[len(x) // 2 :]]) + torch.zeros(len(x), 6)

    found = captured(function, torch.randn(8, 6))
    by_name = {node.name: node for node in found.capture.graph_module.graph.nodes}
    half, whole = Size(Fraction(1, 2), 0), Size(Fraction(1), 0)
    assert found.sizes[by_name["slice_1"]] == {0: half}
    assert found.is_of_rows(by_name["add"])
    assert not found.is_of_rows(by_name["slice_1"])
    assert {node.name: size for (node, _), size in found.numbers.items()} == {
        "slice_1": half,
        "slice_2": half,
        "full": whole,
    }
    assert found.multiple == 2
    assert half.of(14) == 7


def test_no_size_of_rows_is_no_size() -> None:
    found = captured(lambda x: x.reshape(-1, 2, 3).flatten(1) + torch.zeros(6), torch.randn(7, 6))
    assert found.multiple == 1
    assert {size for own in found.sizes.values() for size in own.values()} == {Size(Fraction(1), 0)}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x if len(x) < 8 else x * 2, "computes something else for another number of rows"),
        (lambda x: x * len(x) ** 0.5, "computes something else for another number of rows, first at aten.mul"),
        (lambda x: x.reshape(-1)[: len(x) // 3 + 2], "computes something else for another number of rows, first at"),
        (lambda x: x * 2 if x[0, 0] > 0 else x, "branches on values of its arguments"),
        (lambda x: x.add_(1), "writes into its arguments"),
    ],
)
def test_what_depends_on_the_number_otherwise_is_refused(function: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        captured(function, torch.ones(12, 3))

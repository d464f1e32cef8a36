"""Conditions of compiled code compare sizes, and do nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from marche_fx.errors import GraphError
from marche_fx.passes.lower.relations import relation

CALLED: list[int] = []


def called(*_: Any) -> bool:
    CALLED.append(1)
    return True


def test_sizes_strides_and_offsets_are_compared() -> None:
    holds = relation(
        "x[0].size()[0] == 2 and x[1].stride()[0] == x[0].size(1) * 2 and 2 <= x[0].size()[1] and "
        "x[1].storage_offset() == 0 and (x[0].size()[1] + 1) // 2 != 7 and max(x[0].size(0), 3) == 3 or False"
    )
    assert holds([torch.zeros(2, 3), torch.zeros(4, 6)])
    assert not holds([torch.zeros(2, 3), torch.zeros(4, 7)])
    assert relation("True")([])
    assert relation("math.floor(x[0].size()[0] / 2) == 2 and not x[0].size()[0] % 2")([torch.zeros(4)])


@pytest.mark.parametrize(
    "text",
    [
        *("__import__('os').system('true')", "x[0].tolist()", "x[0].__class__", "x.__class__", "torch.load('a')"),
        *("(lambda: 1)()", "[own for own in x]", "x[0].size().__class__", "x[0].size(n := 1)", "x[0].apply_(print)"),
        *("math.factorial(10**9)", "10 ** 10 ** 10", "1 << 10**9", "'a' * 10**9", "x[x[0].size(0)].size(0)", "open"),
        *("x[0].size", "x[0]", "x[0][0]", "f'{x}'", "a == 1", "max(*x)", "max(1, key=print)", "x[0].size(*x)", ""),
        *(
            "1; 2",
            "x[0].size()[0] ==",
            "(" * 1000 + "1" + ")" * 1000,
            "not " * 100_000 + "1",
            "x[0].size() == called()",
        ),
        *("math.floor.__self__", "torch.sym_max.__globals__", "x[0:1]", "await x", "...", "x[0].size()[0] @ 2"),
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(GraphError, match="no comparison of sizes"):
        relation(text)
    assert not CALLED

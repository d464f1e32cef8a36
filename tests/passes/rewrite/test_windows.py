"""Attention within windows that are folded into samples: rows, columns and frames, with tables of many shapes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marche_fx.passes.rewrite.hooks import insert_hooks
from tests.program import Program

WINDOWS, LENGTH, WIDTH = 3, 4, 8

Fold = Callable[[Tensor], Tensor]


def to_rows(x: Tensor) -> Tensor:
    return x.unflatten(1, (WINDOWS, LENGTH)).flatten(0, 1)


def from_rows(x: Tensor) -> Tensor:
    return x.unflatten(0, (-1, WINDOWS)).flatten(1, 2)


def to_columns(x: Tensor) -> Tensor:
    return x.unflatten(1, (LENGTH, WINDOWS)).transpose(1, 2).flatten(0, 1)


def from_columns(x: Tensor) -> Tensor:
    return x.unflatten(0, (-1, WINDOWS)).transpose(1, 2).flatten(1, 2)


def to_shifted(x: Tensor) -> Tensor:
    return to_rows(x.roll(2, 1))


def from_shifted(x: Tensor) -> Tensor:
    return from_rows(x).roll(-2, 1)


FOLDS = {"rows": (to_rows, from_rows), "columns": (to_columns, from_columns), "shifted": (to_shifted, from_shifted)}
TABLES = {"[1, W, C]": (1, LENGTH, WIDTH), "[W, C]": (LENGTH, WIDTH), "[1, 1, C]": (1, 1, WIDTH)}


class Windowed(nn.Module):
    """Attention within windows, and among all tokens in between where ``is_global``."""

    def __init__(self, fold: str, table: str, *, is_global: bool) -> None:
        super().__init__()
        self.enter, self.leave = FOLDS[fold]
        self.place, self.inside = (
            nn.Parameter(torch.randn(shape)) for shape in ((WINDOWS * LENGTH, WIDTH), TABLES[table])
        )
        self.qkv, self.is_global = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(3)), is_global

    def attend(self, number: int, x: Tensor) -> Tensor:
        q, k, v = self.qkv[number](x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.place
        for number in range(2):
            x = self.leave(self.attend(number, self.enter(x) + self.inside))
            x = self.attend(2, x) if self.is_global else x
        return x


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("is_global", [False, True])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("fold", FOLDS)
@torch.no_grad()
def test_tables_meet_windows_as_they_do_in_the_original(fold: str, table: str, is_global: bool, samples: int) -> None:
    model, generator = Windowed(fold, table, is_global=is_global).double().eval(), torch.Generator().manual_seed(0)

    def tokens() -> Tensor:
        shape = samples, WINDOWS * LENGTH, WIDTH
        return torch.randn(shape, dtype=torch.float64, generator=generator)

    program = Program(model, "forward", [tokens()])
    program.split = insert_hooks(program.split, program.plan, [lambda hooks: hooks.attention("all")])[0]
    oracle, length = program.oracle(), program.plan.axes.length
    for count in (length, 1, 2, length):
        x, active = tokens(), torch.rand(samples, length, generator=generator).argsort(-1)[:, :count]
        (result,), (expected,) = program.step([x], active), oracle.step([x], active)
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
        if count == length:
            torch.testing.assert_close(result, model(x), rtol=1e-10, atol=1e-10)

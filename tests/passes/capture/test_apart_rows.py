"""What treats rows apart is found to, and what mixes them in any way is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from marche_fx.passes.capture.apart_rows import check_rows_are_apart

WIDTH = 6

LEADS = st.sampled_from([(1, 5), (3, 4), (2, 17), (9,), (2, 2), (1, 2)])

KINDS = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


def weight(dtype: torch.dtype) -> Tensor:
    return torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)


def picked(x: Tensor) -> Tensor:
    """Of each row what the expert of its largest channel makes of it."""
    rows, found = x.flatten(0, -2), torch.zeros_like(x.flatten(0, -2))
    chosen = rows.argmax(-1)
    for number in range(WIDTH):
        own = (chosen == number).nonzero()[:, 0]
        found.index_add_(0, own, rows[own] @ (weight(x.dtype) * number))
    return found.view_as(x)


APART: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "linear": lambda x: [x @ weight(x.dtype)],
    "norm": lambda x: [torch.nn.functional.layer_norm(x, (WIDTH,))],
    "experts": lambda x: [picked(x)],
    "several": lambda x: [x.exp(), x.argsort(-1), (x > 0).flatten(0, -2)],
    "constant": lambda x: [torch.ones_like(x)],
    "infinite": lambda x: [x.log()],
}


def first_come(x: Tensor, most: int = 1) -> Tensor:
    """As experts do that take so many tokens and no more."""
    rows = x.flatten(0, -2)
    chosen = torch.nn.functional.one_hot((rows[:, 0] > 0).long(), 2)
    taken = (chosen.cumsum(0) * chosen).sum(-1) <= most
    return (rows * taken[:, None]).view_as(x)


MIXING: dict[str, Callable[[Tensor], list[Tensor]]] = {
    "mean": lambda x: [x + x.flatten(0, -2).mean(0)],
    "a trace of the mean": lambda x: [x + 1e-30 * x.flatten(0, -2).mean(0)],
    "neighbour": lambda x: [x + x.flatten(0, -2).roll(1, 0).view_as(x)],
    "maximum": lambda x: [x / x.abs().max()],
    "count": lambda x: [x * math.prod(x.shape[:-1])],
    "order": lambda x: [x.flatten(0, -2).sort(0).values.view_as(x)],
    "capacity": lambda x: [first_come(x)],
    "position": lambda x: [x + torch.arange(math.prod(x.shape[:-1])).view(*x.shape[:-1], 1)],
    "one of several": lambda x: [x, x.flatten(0, -2).argsort(0).view(x.shape)],
}


def rows(lead: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(*lead, WIDTH, generator=torch.Generator().manual_seed(seed)).to(dtype)


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(sorted(APART)), lead=LEADS, dtype=KINDS, seed=st.integers(0, 99))
def test_rows_that_are_apart_are_found_to_be(name: str, lead: tuple[int, ...], dtype: torch.dtype, seed: int) -> None:
    assert check_rows_are_apart(APART[name], [rows(lead, dtype, seed)]) == ""


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(MIXING)),
    lead=st.sampled_from([(1, 8), (3, 4), (2, 17), (9,)]),
    dtype=KINDS,
    seed=st.integers(0, 99),
)
def test_rows_that_are_mixed_are_found_to_be(name: str, lead: tuple[int, ...], dtype: torch.dtype, seed: int) -> None:
    assert check_rows_are_apart(MIXING[name], [rows(lead, dtype, seed)])


def test_all_operands_have_the_same_rows_replaced() -> None:
    x, y = rows((2, 5), torch.float32, 0), rows((2, 5), torch.float32, 1)
    assert check_rows_are_apart(lambda x, y: [x * y], [x, y]) == ""
    assert check_rows_are_apart(lambda x, y: [x * y.flip(1)], [x, y])


@pytest.mark.parametrize(("off", "apart"), [(1, True), (8, False)])
def test_a_few_rows_may_go_to_another_expert_where_there_are_fewer(off: int, apart: bool) -> None:
    """As rounding decides between two that are nearly as good, which another number of rows may do otherwise."""

    def rounded(x: Tensor) -> list[Tensor]:
        flipped = x[..., :1] > x[..., 0].flatten().sort().values[-off - 1] if x.shape[1] == 50 else torch.zeros(1) > 1
        return [x + flipped]

    generator = torch.Generator().manual_seed(3)
    found = check_rows_are_apart(rounded, [torch.randn(2, 100, WIDTH, generator=generator)])
    assert (found == "") == apart, found


@pytest.mark.parametrize("lead", [(1,), (1, 1)])
def test_one_row_tells_nothing(lead: tuple[int, ...]) -> None:
    assert "a single token" in check_rows_are_apart(lambda x: [x], [rows(lead, torch.float32, 0)])

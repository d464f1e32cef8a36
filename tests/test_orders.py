"""Orders visit every token once; counts decode all of them."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marche_fx import ArgumentError
from marche_fx.models.mar import mask_length
from marche_fx.orders import (
    COUNTS,
    ORDERS,
    checked_counts,
    checkerboard_order,
    cosine_counts,
    counts_along,
    halton_order,
    linear_counts,
    order_by_name,
    random_order,
    raster_order,
    two_stage_counts,
)

sides = st.integers(1, 12)


@given(name=st.sampled_from(list(ORDERS)), height=sides, width=sides, seed=st.none() | st.integers(0, 99))
def test_an_order_visits_every_token_once(name: str, height: int, width: int, seed: int | None) -> None:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    order = order_by_name(name)(3, height, width, generator)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort(-1).values, torch.arange(height * width).repeat(3, 1))


@pytest.mark.parametrize("name", ["random", "checkerboard", "halton"])
def test_samples_differ_and_a_generator_repeats_them(name: str) -> None:
    first, again = (ORDERS[name](4, 8, 8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert len({tuple(own.tolist()) for own in first}) > 1


def test_raster_goes_row_by_row() -> None:
    assert raster_order(1, 2, 3).tolist() == [[0, 1, 2, 3, 4, 5]]


def of_base(number: int, base: int) -> Fraction:
    """The radical inverse by exact arithmetic: digits mirrored at the point."""
    digits = []
    while number:
        digits.append(number % base)
        number //= base
    return sum((Fraction(digit, base**place) for place, digit in enumerate(digits, 1)), Fraction(0))


@pytest.mark.parametrize(("height", "width"), [(4, 4), (16, 16), (14, 14), (5, 9)])
def test_halton_cells_are_those_of_the_sequence(height: int, width: int) -> None:
    expected: list[int] = []
    for number in range(1, 20_000):
        cell = int(of_base(number, 2) * height) * width + int(of_base(number, 3) * width)
        if cell not in expected:
            expected.append(cell)
        if len(expected) == height * width:
            break
    assert halton_order(1, height, width)[0].tolist() == expected


def nearest(order: torch.Tensor, side: int, count: int) -> float:
    """The mean distance of the first ``count`` tokens of an order to the nearest of the others, on a torus."""
    rows, columns = order[:count] // side, order[:count] % side
    apart = []
    for own in (rows, columns):
        gap = (own[:, None] - own[None]).abs()
        apart.append(torch.minimum(gap, side - gap))
    distance = (apart[0] ** 2 + apart[1] ** 2).double().sqrt() + torch.eye(count) * side
    return float(distance.min(1).values.mean())


def test_first_tokens_of_halton_are_further_apart_than_random_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    own = halton_order(20, 16, 16, generator)
    by_chance = random_order(20, 16, 16, generator)
    for count in (8, 16, 32):
        halton, random = (sum(nearest(order, 16, count) for order in orders) for orders in (own, by_chance))
        assert halton > 1.2 * random


@given(height=st.integers(2, 9), width=st.integers(2, 9))
def test_the_second_colour_stands_between_neighbours_that_are_there(height: int, width: int) -> None:
    order = checkerboard_order(2, height, width)
    first = height * width - height * width // 2
    for own in order.tolist():
        earlier = set(own[:first])
        for token in own[first:]:
            row, column = divmod(token, width)
            beside = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
            assert all(r * width + c in earlier for r, c in beside if 0 <= r < height and 0 <= c < width)


@given(name=st.sampled_from(list(COUNTS)), tokens=st.integers(2, 300), data=st.data())
def test_counts_decode_every_token_with_one_at_least_in_each_step(name: str, tokens: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(2, tokens))
    counts = COUNTS[name](tokens, steps)
    assert checked_counts(counts, tokens, steps) == counts


@given(power=st.floats(0.1, 5), tokens=st.integers(1, 100), data=st.data())
def test_counts_along_any_curve_leave_a_token_for_each_later_step(
    power: float, tokens: int, data: st.DataObject
) -> None:
    steps = data.draw(st.integers(1, tokens))
    counts = counts_along(lambda share: share**power, tokens, steps)
    assert checked_counts(counts, tokens, steps) == counts


@given(tokens=st.integers(1, 300), data=st.data())
def test_cosine_counts_are_those_of_mar(tokens: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, tokens))
    left, expected = tokens, []
    for step in range(steps):
        after = 0 if step == steps - 1 else mask_length(step, steps, tokens, left)
        expected.append(left - after)
        left = after
    # MAR's loop runs steps without a token where too few are left.
    if min(expected) > 0:
        assert cosine_counts(tokens, steps) == expected


@given(tokens=st.integers(1, 300), data=st.data())
def test_linear_counts_differ_by_at_most_one(tokens: int, data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, tokens))
    counts = linear_counts(tokens, steps)
    assert {tokens // steps, math.ceil(tokens / steps)} >= set(counts)


def test_two_stages_spend_most_steps_on_the_first_colour() -> None:
    counts = two_stage_counts(196, 32)
    assert sum(counts[:24]) == 98
    assert all(a <= b + 1 for a, b in pairwise(counts[:24]))
    assert max(counts[24:]) - min(counts[24:]) <= 1
    assert sum(two_stage_counts(100, 10, first=30, share=0.5)[:5]) == 30


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cosine_counts(10, 11), "number of steps must lie in 1..10"),
        (lambda: linear_counts(10, 0), "number of steps must lie in 1..10"),
        (lambda: two_stage_counts(10, 1), "at least 2 steps"),
        (lambda: two_stage_counts(10, 11), "number of steps must lie in"),
        (lambda: two_stage_counts(10, 4, first=10), "first must lie in 1..9"),
        (lambda: two_stage_counts(10, 4, share=1.0), "share must lie between 0 and 1"),
        (lambda: raster_order(1, 0, 4), "needs samples, rows and columns"),
        (lambda: order_by_name("spiral"), "no order 'spiral'; there are random, raster, halton, checkerboard"),
        (lambda: checked_counts([3, 4], 8, 2), "add up to the 8 tokens"),
        (lambda: checked_counts([8, 0], 8, 2), "at least 1"),
        (lambda: checked_counts([8], 8, 2), "2 numbers"),
    ],
)
def test_what_cannot_be_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ArgumentError, match=message):
        make()

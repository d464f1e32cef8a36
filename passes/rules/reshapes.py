"""How `view` cuts and joins dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from ..graph.operands import expression, operands, shape_of
from .dim_map import DimMap, finished

aten = torch.ops.aten

RESHAPES = (aten.view.default, aten.reshape.default, aten._unsafe_view.default)

Factors = list[list[int]]
"""For each dimension, from the slowest, the numbers of the factors that it is the product of."""


def common_factors(shape: Sequence[int], out_shape: Sequence[int]) -> tuple[Factors, Factors, list[int]]:
    """The factors that two shapes of one row-major tensor have in common, by number, and the size of each.

    ``(2, 3, 5, 4), (6, 5, 2, 2)`` gives ``[[0], [1], [2], [3, 4]], [[0, 1], [2], [3], [4]], [2, 3, 5, 2, 2]``.
    Dimensions that have no such factors, as in ``(2, 3) -> (3, 2)``, get none; neither do those of size 1.
    """
    sides = [list(shape), list(out_shape)]
    found: list[Factors] = [[[] for _ in side] for side in sides]
    factor_sizes: list[int] = []
    if 0 in sides[0]:
        return found[0], found[1], factor_sizes
    starts = [0, 0]
    for ends in blocks(*sides):
        sizes = [side[start:end] for side, start, end in zip(sides, starts, ends)]
        edges = sorted({1} | {math.prod(own[: i + 1]) for own in sizes for i in range(len(own))})
        if all(after % before == 0 for before, after in itertools.pairwise(edges)):
            numbers = {edge: len(factor_sizes) + i for i, edge in enumerate(edges[1:])}
            factor_sizes += [after // before for before, after in itertools.pairwise(edges)]
            for side, own, start in zip(found, sizes, starts):
                for i in range(len(own)):
                    low, high = math.prod(own[:i]), math.prod(own[: i + 1])
                    side[start + i] = [number for edge, number in numbers.items() if low < edge <= high]
        starts = list(ends)
    return found[0], found[1], factor_sizes


def blocks(shape: Sequence[int], out_shape: Sequence[int]) -> list[tuple[int, int]]:
    """Where both shapes have passed equally many elements: the ends of the smallest groups that hold the same."""
    ends = []
    i = j = 0
    while i < len(shape) or j < len(out_shape):
        passed, out_passed = (shape[i], out_shape[j]) if i < len(shape) and j < len(out_shape) else (1, 1)
        i, j = min(i + 1, len(shape)), min(j + 1, len(out_shape))
        while passed != out_passed:
            if passed < out_passed:
                passed, i = passed * shape[i], i + 1
            else:
                out_passed, j = out_passed * out_shape[j], j + 1
        ends.append((i, j))
    return ends


def reshape(node: fx.Node) -> DimMap:
    """A dimension stays where the elements before it and in it are the same in both shapes; it may not be cut."""
    x = operands(node)[0]
    assert x is not None
    return finished(node, {(0, dim): out for dim, out in kept_dimensions(shape_of(x), shape_of(node)).items()}, set())


def kept_dimensions(shape: Sequence[Any], out_shape: Sequence[Any]) -> dict[int, int]:
    """Equal dimensions of a row-major tensor before and after `view`.

    ``(2, 5, 12), (2, 5, 3, 4) -> {0: 0, 1: 1}``. Dimensions of size 1 move nothing and pair where they stand.
    """
    before = [(dim, expression(size)) for dim, size in enumerate(shape)]
    after = [(dim, expression(size)) for dim, size in enumerate(out_shape)]
    # Walking from either end finds what a symbolic size in the middle hides from the other.
    kept = dict(walk(before, after))
    for dim, out in walk(before[::-1], after[::-1]):
        if dim not in kept and out not in kept.values():
            kept[dim] = out
    return kept


def walk(before: list[tuple[int, Any]], after: list[tuple[int, Any]]) -> list[tuple[int, int]]:
    """Pair up dimensions and their sizes, `expression` each, while the products of those passed so far agree."""
    pairs = []
    i = j = 0
    passed, out_passed = expression(1), expression(1)
    while i < len(before) and j < len(after):
        (dim, size), (out, out_size) = before[i], after[j]
        if passed == out_passed and size == out_size:
            pairs.append((dim, out))
            passed, i, out_passed, j = passed * size, i + 1, out_passed * out_size, j + 1
        elif passed == out_passed and out_size == 1:
            j += 1
        elif passed == out_passed:
            passed, i = passed * size, i + 1
        elif not (passed.is_number and out_passed.is_number):
            break
        elif passed < out_passed:
            passed, i = passed * size, i + 1
        else:
            out_passed, j = out_passed * out_size, j + 1
    return pairs

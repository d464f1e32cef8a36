"""How `view` cuts and joins dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

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

"""Which decoding steps are timed, and how their times add up to those of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from ..errors import ArgumentError


def spread(count: int, every: int) -> tuple[int, ...]:
    """One step in so ``many`` of ``count``, the first and the last among them."""
    return tuple(sorted({*range(0, count, every), count - 1}))


def step_weights(timed: Sequence[int], count: int) -> dict[int, float]:
    """How often the time of each timed step counts in the sum over ``count`` steps.

    The steps between two timed ones take what lies on the straight line between them, so the sum is exact for times
    that are linear in the step's number, and the weights add up to ``count``.

    Raises:
        ArgumentError: the first or the last step is not timed.
    """
    ordered = sorted(timed)
    if not ordered or ordered[0] != 0 or ordered[-1] != count - 1:
        raise ArgumentError(f"the first and the last of {count} steps must be timed, got {list(timed)}")
    weights = dict.fromkeys(ordered, 1.0)
    for left, right in pairwise(ordered):
        # The right - left - 1 steps between lie on average in the middle of both.
        between = (right - left - 1) / 2
        weights[left] += between
        weights[right] += between
    return weights


def integrated(seconds: Mapping[int, float], count: int) -> float:
    """The sum over ``count`` steps of which some were timed."""
    weights = step_weights(list(seconds), count)
    return sum(weights[step] * own for step, own in seconds.items())

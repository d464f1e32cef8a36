"""Policies compared at equal FLOPs.

Budgets of two policies never cost quite the same, so the drift of one is interpolated between its points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from .points import Point
from .rows import DriftRow

Curve = list[tuple[float, float]]
"""FLOPs and drift of points that differ in their budget alone, in the order of their FLOPs."""


def curves_of(points: Sequence[Point], rows: Sequence[DriftRow]) -> dict[tuple[str, str], Curve]:
    """The curve of each kind of policy, number of steps and set of seeds; of points that drift at all."""
    curves: dict[tuple[str, str], Curve] = {}
    for point, row in zip(points, rows, strict=True):
        if row.drift > 0:
            curves.setdefault((point.kind, point.suffix), []).append((row.flops_ratio, row.drift))
    return {key: sorted(curve) for key, curve in curves.items()}


def drift_at(curve: Curve, flops: float) -> float | None:
    """The drift of a curve at these FLOPs; its logarithm is linear between two points. None beyond the curve's ends."""
    for (left, before), (right, after) in itertools.pairwise(curve):
        if left <= flops <= right:
            weight = (flops - left) / (right - left) if right > left else 0.0
            return math.exp((1 - weight) * math.log(before) + weight * math.log(after))
    return None


def drift_over_others(points: Sequence[Point], rows: Sequence[DriftRow]) -> dict[str, dict[str, float | None]]:
    """Of each point that drifts: its drift over that of every other kind of policy at the point's FLOPs.

    Kinds are compared in equal numbers of steps and on the same seeds; None where a kind was not evaluated at fewer
    FLOPs and at more.
    """
    curves = curves_of(points, rows)
    found: dict[str, dict[str, float | None]] = {}
    for point, row in zip(points, rows, strict=True):
        if row.drift > 0:
            others = {
                kind: drift_at(curve, row.flops_ratio)
                for (kind, suffix), curve in curves.items()
                if kind != point.kind and suffix == point.suffix and len(curve) > 1
            }
            found[point.spec] = {kind: None if other is None else row.drift / other for kind, other in others.items()}
    return found

"""The cost model of a step, fitted to what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Fit:
    """Non-negative coefficients of named terms.

    Attributes:
        coefficients: by term, in seconds a unit of it. error: mean of what a prediction differs by, over the measured.
            worst: the highest.
    """

    coefficients: dict[str, float]
    error: float
    worst: float

    def predict(self, terms: dict[str, float]) -> float:
        return sum(self.coefficients[name] * value for name, value in terms.items())


def fit_terms(terms: Sequence[dict[str, float]], seconds: Sequence[float]) -> Fit:
    """The coefficients with the least relative errors, none of them negative.

    Args:
        terms: of each measurement, the same names.
    """
    names = list(terms[0])
    measured = np.asarray(seconds, dtype=np.float64)
    matrix = np.asarray([[own[name] for name in names] for own in terms], dtype=np.float64)
    solution = non_negative_least_squares(matrix / measured[:, None], np.ones(len(measured)))
    errors = np.abs(matrix @ solution / measured - 1)
    return Fit(dict(zip(names, solution.tolist())), float(errors.mean()), float(errors.max()))


def non_negative_least_squares(matrix: Array, target: Array) -> Array:
    """``x >= 0`` that minimises ``|matrix x - target|``, for a handful of columns.

    The solution is the ordinary one on some of the columns, those where it is positive; all choices are tried.
    """
    count = matrix.shape[1]
    # Columns of very different units make lstsq drop the small ones.
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    best, least = np.zeros(count), float(np.linalg.norm(target))
    for size in range(1, count + 1):
        for chosen in map(list, combinations(range(count), size)):
            found = np.linalg.lstsq(matrix[:, chosen] / scale[chosen], target, rcond=None)[0]
            residual = float(np.linalg.norm(matrix[:, chosen] / scale[chosen] @ found - target))
            if (found >= 0).all() and residual < least:
                best, least = np.zeros(count), residual
                best[chosen] = found / scale[chosen]
    return best

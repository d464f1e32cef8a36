"""The cost model and its fit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls

from marche_fx.bench.fit import fit_terms, non_negative_least_squares

coefficients = st.floats(0.01, 10)


@given(coefficients, coefficients, coefficients)
def test_times_that_follow_the_model_are_fitted_exactly(fixed: float, weights: float, tokens: float) -> None:
    terms = [{"one": 1.0, "rows": rows, "pairs": rows * keys} for rows in (1.0, 5.0, 20.0) for keys in (1.0, 7.0)]
    seconds = [fixed * own["one"] + weights * own["rows"] + tokens * own["pairs"] for own in terms]
    fit = fit_terms(terms, seconds)
    assert list(fit.coefficients.values()) == pytest.approx([fixed, weights, tokens], rel=1e-5)
    assert fit.worst < 1e-6
    assert fit.predict(terms[3]) == pytest.approx(seconds[3])


@given(st.integers(0, 1000))
def test_no_coefficient_is_negative_and_none_fit_better(seed: int) -> None:
    draws = np.random.default_rng(seed)
    matrix, target = draws.normal(size=(9, 4)), draws.normal(size=9)
    found = non_negative_least_squares(matrix, target)
    expected, residual = nnls(matrix, target)
    assert (found >= 0).all()
    assert np.linalg.norm(matrix @ found - target) == pytest.approx(residual)
    assert found == pytest.approx(expected, abs=1e-8)


def test_columns_of_very_different_units_all_count() -> None:
    terms = [{"blocks": 4.0, "rows": rows * 1e12} for rows in (1.0, 2.0, 4.0)]
    fit = fit_terms(terms, [0.1 * 4 + 1e-13 * own["rows"] for own in terms])
    assert fit.coefficients["blocks"] == pytest.approx(0.1)
    assert fit.coefficients["rows"] == pytest.approx(1e-13)

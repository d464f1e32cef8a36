"""What the report says of the last session."""

from __future__ import annotations

import warnings

import pytest
import torch

import marche_fx
from marche_fx import SelectiveRefresh
from tests.networks import Transformer
from tests.reporting.used import X, used


def test_rows_and_flops_of_the_last_session_are_counted() -> None:
    session = marche_fx.report(used()).session
    assert session is not None
    ((name, calls, rows, original, flops, original_flops),) = session.rows
    assert (name, calls, rows, original) == ("forward", 3, 2 * (30 + 8 + 8), 2 * 3 * 30)
    # Per token: q, k, v, output and MLP of two layers, and the head; per pair of tokens the two products of attention.
    per_row, per_pair = 2 * (2 * (4 * 16 * 16 + 2 * 16 * 32) + 16 * 3), 2 * 2 * 2 * 16
    assert original_flops == pytest.approx(3 * 2 * 30 * (per_row + 30 * per_pair))
    assert flops == pytest.approx(2 * (30 + 8 + 8) * (per_row + 30 * per_pair))
    assert session.flops_ratio == pytest.approx(46 / 90)


@torch.no_grad()
def test_a_call_of_which_more_is_read_later_is_one_call_of_the_original() -> None:
    torch.manual_seed(0)
    policy = SelectiveRefresh(0.0, warmup=1)
    optimized = marche_fx.transform(Transformer(30, 16, 2).eval(), refresh=policy, compile=False)
    with marche_fx.decoding(optimized):
        for step in range(4):
            z = optimized(X)
            # Others in every call, so that none are expected.
            z[:, 2 * step : 2 * step + 2].sum()
            z[:, 16 + 2 * step : 18 + 2 * step].sum()
    session = marche_fx.report(optimized).session
    assert session is not None
    ((_, calls, rows, original, flops, original_flops),) = session.rows
    assert (calls, original) == (4, 4 * 2 * 30)
    assert [own.step for own in session.choices] == [0, 1, 1, 2, 2, 3, 3]
    assert rows == 2 * (30 + 3 * (8 + 8))
    assert session.flops_ratio == pytest.approx(flops / original_flops)
    assert session.flops_ratio < rows / original + 1e-6
    assert all(own.flops_ratio == pytest.approx(session.choices[1].flops_ratio) for own in session.choices[1:])


def test_a_report_before_the_first_call_says_so() -> None:
    report = marche_fx.report(marche_fx.transform(Transformer(30, 16, 2).eval()))
    assert "captured at its first call" in str(report)


def test_warnings_are_in_the_report_in_full() -> None:
    optimized = marche_fx.transform(
        Transformer(30, 16, 2).eval(), refresh=SelectiveRefresh(0.0, warmup=1), compile=False
    )
    x = X.clone()
    with torch.no_grad(), warnings.catch_warnings(record=True) as caught, marche_fx.decoding(optimized):
        warnings.simplefilter("always")
        for step in range(3):
            x[:, step] += 1
            optimized(x).sum()
    (told,) = marche_fx.report(optimized).warnings
    assert told in [str(own.message) for own in caught]
    assert "was read as a whole" in told

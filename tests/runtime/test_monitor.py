"""A monitored session notices that its cached rows are off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import marche_fx
from marche_fx import ArgumentError, Monitor, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.models import load_fashion_mar
from marche_fx.models.drift import DecodingStep, read_rows, replay
from marche_fx.models.mar import MAR
from marche_fx.runtime.records import StepRecord
from tests.networks import Transformer

STEPS, SWITCH = 10, 6


def records(optimized: torch.nn.Module) -> list[StepRecord]:
    session = optimization_of(optimized).last_session
    assert session is not None
    return session.records


def switched(mar: MAR) -> Iterator[DecodingStep]:
    """A generation whose label changes from trousers to a bag in the middle."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 1, 28, 28, generator=generator).clamp(-1, 1)
    orders = mar.sample_orders(2, generator)
    before, after = (replay(mar, images, orders, torch.full((2,), label), STEPS, 1.0) for label in (1, 8))
    for number, (old, new) in enumerate(zip(before, after)):
        yield old if number < SWITCH else new


@torch.no_grad()
def drifts(mar: MAR, monitor: Monitor | bool) -> tuple[list[float], list[StepRecord]]:
    """Of the rows that each step reads, against the original."""
    policy = SelectiveRefresh(0.0, warmup=2)
    optimized = marche_fx.transform(mar, refresh=policy, compile=False, verify=False, monitor=monitor)
    found = []
    with marche_fx.decoding(optimized):
        for step in switched(mar):
            exact, cached = read_rows(mar, step), read_rows(optimized, step)
            found.append(float((cached - exact).norm() / exact.norm()))
    return found, records(optimized)


def test_an_abrupt_change_of_conditions_is_noticed() -> None:
    mar, bound = load_fashion_mar(), 0.1
    unguarded, plain = drifts(mar, monitor=False)
    guarded, checked = drifts(mar, monitor=Monitor(every=1, max_drift=bound))
    assert max(unguarded[SWITCH:]) > bound
    assert max(guarded[SWITCH:]) <= bound
    assert all(record.drift is None for record in plain)
    off = [record for record in checked if record.drift is not None and record.drift > bound]
    assert off, "the session recomputed all tokens because of a check"
    assert all(record.active == record.visible for record in off)
    # A step that was off is computed twice.
    assert len(checked) == len(plain) + len(off)


@torch.no_grad()
def test_checks_come_at_their_steps_and_change_nothing_where_all_is_well() -> None:
    torch.manual_seed(0)
    model = Transformer(30, 16, 2).eval()
    rows = []
    for monitor in (False, Monitor(every=3, rows=4, max_drift=10.0)):
        optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.1, warmup=1), compile=False, monitor=monitor)
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(2, 30, 16, generator=generator)
        with marche_fx.decoding(optimized):
            for number in range(8):
                x[:, number] = torch.randn(2, 16, generator=generator)
                rows.append(optimized(x)[:, :3].clone())
        checked = [number for number, record in enumerate(records(optimized)) if record.drift is not None]
        assert checked == ([3, 6] if monitor else [])
    assert all(torch.equal(own, other) for own, other in zip(rows[:8], rows[8:]))


@torch.no_grad()
def test_the_drift_is_that_of_cached_rows() -> None:
    torch.manual_seed(0)
    model = Transformer(30, 16, 2).eval()
    monitor = Monitor(every=1, rows=30, max_drift=10.0)
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.0, warmup=1), compile=False, monitor=monitor)
    x = torch.randn(2, 30, 16)
    with marche_fx.decoding(optimized):
        before = optimized(x).clone()
        moved = x.clone()
        moved[:, :9] = torch.randn(2, 9, 16)
        optimized(moved)[:, :2].sum()
    (_, record) = records(optimized)
    cached: Tensor = record.reasons == 0
    exact = model(moved)
    expected = (before - exact)[cached].norm() / exact[cached].norm()
    assert record.drift == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("options", [{"every": 0}, {"rows": 0}, {"max_drift": 0.0}, {"max_drift": float("nan")}])
def test_a_monitor_out_of_range_is_refused_by_name(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(options))):
        Monitor(**options)


def test_something_else_than_a_monitor_is_refused() -> None:
    something: Any = 0.1
    with pytest.raises(ArgumentError, match="monitor must be"):
        marche_fx.transform(Transformer(30, 16, 2), monitor=something)

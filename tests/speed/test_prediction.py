"""What a step takes is predicted from the rates of a machine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import marche_fx
from marche_fx.passes.analysis.plan import Plan
from marche_fx.passes.pipeline import make_plan
from marche_fx.passes.rewrite.split import split
from marche_fx.passes.rules.flops import node_flops
from marche_fx.speed.prediction import COLD, COMPARE, LAYER, OBSERVE, STEP, Prediction
from marche_fx.speed.rates import Curve, Rates, Surface, rates
from tests.networks import Transformer

X = torch.randn(2, 30, 16)


def flat(rate: float) -> Curve:
    return Curve((1, 1024), (rate, rate))


def machine(product: float = 1e9, onednn: float = 2e9, attention: float = 1e9, call: float = 0.0) -> Rates:
    """One whose rates do not depend on the number of rows, and where nothing but products takes time."""
    surfaces = [Surface((8, 1024), (flat(own), flat(own))) for own in (product, onednn)]
    return Rates(surfaces[0], surfaces[1], flat(attention), moved=1e30, mapped=1e30, call=call)


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(Transformer(30, 16, 2).eval(), "forward", (X,))


def flops_of(plan: Plan) -> tuple[float, float]:
    """Of products with weights, and of attention: in each of two blocks 30 keys of 16 channels for every row, twice."""
    attention = 2 * 60 * 30 * 2 * 2 * 16.0
    return sum(node_flops(node) for node in plan.graph.nodes) - attention, attention


def test_time_is_work_over_rate(plan: Plan) -> None:
    products, attention = flops_of(plan)
    found = Prediction(plan, machine(1e9, 4e9, 0.5e9))
    assert found.original() == pytest.approx(products / 1e9 + attention / 0.5e9)
    assert found.incremental([30]) == pytest.approx(products / 4e9 + attention / 0.5e9)
    # Rows of a third of the tokens, which attend to all.
    assert found.incremental([10]) == pytest.approx(found.incremental([30]) / 3)
    # The original that drops tokens has fewer keys too.
    assert found.original(visible=15) == pytest.approx(products / 1e9 / 2 + attention / 0.5e9 / 4)
    uncompiled = Prediction(plan, machine(1e9, 4e9, 0.5e9), compiled=False)
    assert uncompiled.incremental([30]) == pytest.approx(uncompiled.original())


def test_what_runs_before_the_region_is_called_operator_by_operator() -> None:
    slow = machine(product=1e30, onednn=1e30, attention=1e30, call=1e-3)
    step = COLD * 1e-3 * (STEP + 2 * LAYER + 2 + 7)
    found = []
    for exact_sites in (0, 1):
        plan = make_plan(Transformer(30, 16, 2).eval(), "forward", (X,), exact_sites=exact_sites)
        found.append(Prediction(plan, slow).incremental([30]) - step)
    # The first block's views and sums besides; norms and GELU are calls in both.
    assert found[1] > found[0] + COLD * 1e-3
    products = flops_of(plan)[0]
    assert Prediction(plan, machine(1e9, 4e9, attention=1e30)).incremental([30]) == pytest.approx(products / 4e9)


def test_calls_take_time(plan: Plan) -> None:
    slow = machine(product=1e30, onednn=1e30, attention=1e30, call=1e-3)
    compiled = Prediction(plan, slow).incremental([10])
    # Two attentions are called, two layers, and kernels for five norms and two activations.
    assert compiled == pytest.approx(COLD * 1e-3 * (STEP + 2 * LAYER + 2 + 7))
    observing = Prediction(plan, slow, observed=1).incremental([10])
    assert observing == pytest.approx(compiled + COLD * 1e-3 * (OBSERVE + 1))
    eager = Prediction(plan, slow, compiled=False)
    assert eager.original() > COLD * 1e-3 * 15, "norms, sums and views are called"
    assert eager.incremental([10]) == pytest.approx(eager.original() + COLD * 1e-3 * STEP)


def test_work_of_results_is_that_of_the_tokens_that_are_read(plan: Plan) -> None:
    products, attention = flops_of(plan)
    rewritten = split(plan.dense.graph_module, plan.axes, plan.region, plan.sites, skip_unread=True)
    found = Prediction(plan, machine(1e9, 4e9, 0.5e9), read_only=rewritten.read_only)
    whole, fewer = found.incremental([30], [30]), found.incremental([30], [15])
    left_out = sum(node_flops(node) for node in rewritten.read_only) - attention / 2
    assert 0 < left_out < products / 2
    assert whole - fewer == pytest.approx(left_out / 2 / 4e9 + attention / 4 / 0.5e9)


def test_comparing_inputs_takes_time(plan: Plan) -> None:
    idle = replace(machine(1e30, 1e30, 1e30), moved=1e9)
    assert Prediction(plan, idle).incremental([10]) == pytest.approx(COMPARE * X.numel() / 1e9)


@given(
    rates=st.lists(st.floats(1e6, 1e12), min_size=3, max_size=3),
    rows=st.floats(0.1, 5000),
    width=st.floats(1, 1e5),
)
def test_a_rate_lies_between_those_measured(rates: list[float], rows: float, width: float) -> None:
    curve = Curve((1, 10, 100), tuple(rates))
    assert [curve.at(own) for own in (1, 10, 100)] == pytest.approx(rates)
    assert curve.at(10**0.5) == pytest.approx((rates[0] * rates[1]) ** 0.5)
    assert min(rates) * 0.999 <= curve.at(rows) <= max(rates) * 1.001
    surface = Surface((10, 1000), (curve, replace(curve, rates=tuple(rates[::-1]))))
    assert surface.at(1, 100) == pytest.approx((rates[0] * rates[2]) ** 0.5)
    assert min(rates) * 0.999 <= surface.at(rows, width) <= max(rates) * 1.001


def test_rates_are_measured_once_and_explain_uses_them() -> None:
    found = rates(torch.device("cpu"), torch.float32)
    assert rates(torch.device("cpu"), torch.float32) is found
    curves = [*found.products.curves, *found.onednn.curves, found.attention]
    assert all(rate > 0 for curve in curves for rate in curve.rates)
    assert min(found.moved, found.mapped, found.call) > 0
    model = Transformer(30, 16, 2).eval()
    assert marche_fx.explain(model, X).steps[0].speedups == {}
    report = marche_fx.explain(model, X, speed=True, active=0.2)
    assert list(report.steps[0].speedups) == [0.05, 0.1, 0.2, 0.25, 0.5, 1.0]
    assert "predicted speed-up over the original run eagerly" in str(report)
    assert set(report.to_dict()["steps"][0]["speedups"]) == {"0.05", "0.1", "0.2", "0.25", "0.5", "1.0"}

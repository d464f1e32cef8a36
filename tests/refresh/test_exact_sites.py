"""Exact sites: the first run on all rows, and what they see decides which rows of the others run."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import marche_fx
from marche_fx import ArgumentError, DriftRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.runtime.open_sessions import current_session
from tests.by_hand import moved
from tests.oracle import Oracle
from tests.program import oracle_of
from tests.sessions import TOKENS, inputs, positions, records, transformer


class AttentionRows(TorchDispatchMode):
    """How many rows of queries each fused attention had."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name().startswith("aten::_scaled_dot_product"):
            self.rows.append(args[0].shape[-2])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("exact_sites", [1, 2])
@torch.no_grad()
def test_with_exact_sites_a_full_refresh_is_the_original(exact_sites: int) -> None:
    model = transformer()
    optimized = marche_fx.transform(model, refresh=DriftRefresh(1.0, exact_sites=exact_sites), compile=False)
    with marche_fx.decoding(optimized):
        for x in inputs(4):
            torch.testing.assert_close(optimized(x).clone(), model(x), rtol=1e-12, atol=1e-12)
    assert [record.active for record in records(optimized)] == [TOKENS] * 4


@pytest.mark.parametrize("exact_sites", [0, 1, 2])
@torch.no_grad()
def test_with_exact_sites_partial_steps_equal_the_oracle(exact_sites: int) -> None:
    model = transformer()
    policy = DriftRefresh(0.1, warmup=1, exact_sites=exact_sites)
    optimized = marche_fx.transform(model, refresh=policy, compile=False, verify=False)
    oracle: Oracle | None = None
    session = optimization_of(optimized)
    with warnings.catch_warnings(), marche_fx.decoding(optimized):
        warnings.simplefilter("ignore")
        current = current_session(session)
        assert current is not None
        for x in inputs(6):
            found = resolved(optimized(x))
            if oracle is None:
                oracle = oracle_of(session.steps["forward"].programs[0].plan, model)
            (expected,) = oracle.step([x], positions(current.records[-1]))
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert max(record.active for record in records(optimized)[1:]) < TOKENS


@pytest.mark.parametrize("exact_sites", [0, 1, 2])
@torch.no_grad()
def test_the_first_sites_run_on_all_rows_and_the_others_on_active_ones(exact_sites: int) -> None:
    policy = DriftRefresh(0.1, warmup=1, exact_sites=exact_sites)
    optimized = marche_fx.transform(transformer(), refresh=policy, compile=False, verify=False)
    first, *others = inputs(4)
    counted = []
    with marche_fx.decoding(optimized):
        optimized(first)[:, :2].sum()
        for x in others:
            with AttentionRows() as counter:
                optimized(x)[:, :2].sum()
            counted.append(counter.rows)
    for rows, record in zip(counted, records(optimized)[1:], strict=True):
        assert record.active < TOKENS
        assert rows == [TOKENS] * exact_sites + [record.active] * (2 - exact_sites) + list(record.read)


@pytest.mark.parametrize("exact_sites", [3, 9])
def test_exact_sites_must_leave_a_site(exact_sites: int) -> None:
    optimized = marche_fx.transform(transformer(), refresh=DriftRefresh(exact_sites=exact_sites), compile=False)
    with torch.no_grad(), pytest.raises(ArgumentError, match=f"leave one of 3 attention sites .* got {exact_sites}"):
        optimized(inputs(1)[0])


@torch.no_grad()
def test_what_no_first_site_can_see_is_refreshed_by_what_it_sees() -> None:
    """Every token's own input stands still; what the exact site makes of them tells which ones moved."""
    model = transformer()
    optimized = marche_fx.transform(model, refresh=DriftRefresh(0.2, warmup=1, exact_sites=1), compile=False)
    x = inputs(1)[0]
    with marche_fx.decoding(optimized):
        optimized(x)[:, :2].sum()
        x = x.clone()
        x[:, 7] = inputs(2)[1][:, 9] * 3
        optimized(x)[:, :2].sum()
    block: Any = model.blocks[0]
    rows = [block.norm1(own + model.position) for own in (inputs(1)[0], x)]
    before, after = (block.attention(own) for own in rows)
    refreshed = records(optimized)[1].reasons == 3
    drift = moved(after, before)
    assert refreshed.sum(1).min() >= 8
    assert drift[refreshed].mean() > 1.5 * drift[records(optimized)[1].reasons == 0].mean()

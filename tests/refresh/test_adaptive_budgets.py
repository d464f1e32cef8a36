"""Adaptive budgets in sessions hold their mean, by the drift of what was refreshed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import marche_fx
from marche_fx import AdaptiveBudget, DriftRefresh, History, Refresh
from tests.by_hand import ByHand, moved
from tests.refresh.test_own_policies import Constant
from tests.sessions import TOKENS, inputs, positions, records, run, transformer


class Watched(DriftRefresh):
    """Notes what it was given and what it spends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        object.__setattr__(self, "seen", [])

    def choose(self, history: History) -> Refresh:
        refresh = super().choose(history)
        self.seen.append((refresh.count, history.mean_drift, history.usual_drift))  # type: ignore[attr-defined]
        return refresh


@pytest.mark.parametrize("mean", [0.1, 0.25])
@torch.no_grad()
def test_an_adaptive_budget_holds_its_mean_over_a_generation(mean: float) -> None:
    policy = Watched(AdaptiveBudget(mean), warmup=3)
    model = transformer(2)
    optimized = marche_fx.transform(model, refresh=policy, compile=False, verify=False)
    generator = torch.Generator().manual_seed(0)
    x = inputs(1)[0]
    with marche_fx.decoding(optimized):
        for step in range(24):
            optimized(x)[:, :2].sum()
            # Bursts of movement, below what counts as a change.
            x = x * (1 + (0.08 if step % 5 == 0 else 0.005) * torch.randn(x.shape, generator=generator).sign().double())
    counts, drifts, usual = zip(*policy.seen)  # type: ignore[attr-defined]
    partial = [count / TOKENS for count in counts[3:]]
    assert len(partial) == 21
    assert len(set(partial)) > 3, "more in some steps than in others"
    assert sum(partial) / len(partial) == pytest.approx(mean, rel=2 / 24)
    # Measured in the last step in full, brought to the host with the counts of the first partial one.
    assert drifts[:4] == usual[:4] == (None,) * 4
    assert all(drift > 0 for drift in drifts[4:])
    assert usual[-1] == pytest.approx(sum(drifts[4:]) / len(drifts[4:]))


@torch.no_grad()
def test_the_mean_drift_is_that_of_the_refreshed_tokens() -> None:
    policy, model, xs = Watched(AdaptiveBudget(0.2), warmup=1), transformer(2), inputs(7)
    optimized = run(policy, len(xs), model)
    hand = ByHand(list(model.blocks), model.position)
    found = []
    for x, record in zip(xs, records(optimized)):
        active = positions(record)
        first = hand.step(x, active)[0]
        is_refreshed = record.reasons.gather(1, active) > 1
        found.append(float(moved(first["v"], first["v before"])[is_refreshed].mean()))
    seen = [drift for _, drift, _ in policy.seen]  # type: ignore[attr-defined]
    # That of a step arrives in the next one, after its choice.
    assert seen[3:] == pytest.approx(found[1:-2], rel=1e-4)


@torch.no_grad()
def test_each_of_two_policies_holds_a_budget_of_its_own() -> None:
    adaptive = Watched(AdaptiveBudget(0.2), warmup=1)
    run(adaptive + Constant(6, torch.ones(2, TOKENS)), steps=13)
    counts = [count for count, _, _ in adaptive.seen[1:]]  # type: ignore[attr-defined]
    assert sum(counts) / len(counts) / TOKENS == pytest.approx(0.2, rel=1 / 12 + 0.03)

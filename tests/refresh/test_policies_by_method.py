"""A refresh policy for each step method: what it measures, and for whom it chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

import marche_fx
from marche_fx import (
    ArgumentError,
    AttentionReceived,
    DriftRefresh,
    FullRefresh,
    History,
    Refresh,
    RefreshPolicy,
    SelectiveRefresh,
    ValueDrift,
)
from marche_fx.api.optimization import optimization_of
from marche_fx.models.mar import MAR
from tests.sessions import decode, grid_mar, records


class Rolling(RefreshPolicy):
    """Refreshes the next ``count`` tokens in every step, and notes what it is asked about."""

    def __init__(self, count: int, *signals: Any, tolerance: float = 0.1) -> None:
        self.count = count
        self.signals = signals
        self.tolerance = tolerance
        self.asked: list[dict[str, Any]] = []

    def choose(self, history: History) -> Refresh:
        known = {signal: history.latest(signal) for signal in self.signals}
        self.asked.append({"step": history.step, "shape": history.age.shape, "signals": known})
        turn = torch.arange(history.tokens, dtype=torch.float32).roll(self.count * history.step)
        return Refresh(self.count, turn.expand(history.age.shape))


@pytest.fixture
def mar() -> MAR:
    return grid_mar()


def test_each_policy_measures_and_chooses_for_its_own_method(mar: MAR) -> None:
    encoder, decoder = Rolling(0, ValueDrift(1)), Rolling(8, ValueDrift(2), AttentionReceived(1))
    policies = {"forward_mae_decoder": decoder, "forward_mae_encoder": encoder}
    optimized = marche_fx.transform(mar, refresh=policies, compile=False)
    decode(mar, optimized)
    for name, policy in policies.items():
        (step,) = (own for own in optimization_of(optimized).steps.values() if own.name == name)
        assert [program.signals for program in step.programs] == [policy.signals]
        assert [asked["step"] for asked in policy.asked] == list(range(6)), "a choice of its own in every step"
        assert policy.asked[0]["shape"] == (2, 40)
        assert all(policy.asked[-1]["signals"][signal] is not None for signal in policy.signals)
    drifts = [encoder.asked[-1]["signals"][ValueDrift(1)], decoder.asked[-1]["signals"][ValueDrift(2)]]
    assert not torch.equal(*drifts)
    refreshed = {
        name: [int((own.reasons == 3).sum(1).max()) for own in records(optimized)[2:] if own.name == name]
        for name in policies
    }
    # Counts are multiples of eight: what changed or is queried, and room for a few more.
    assert max(refreshed["forward_mae_encoder"][2:]) < 8
    assert min(refreshed["forward_mae_decoder"]) >= 8


def test_a_policy_of_both_methods_measures_in_the_last_and_chooses_once(mar: MAR) -> None:
    policy = Rolling(8, ValueDrift(1))
    optimized = marche_fx.transform(mar, refresh=dict.fromkeys(("forward_mae_encoder", "forward_mae_decoder"), policy))
    optimization_of(optimized).settings.compile = False
    decode(mar, optimized)
    steps = optimization_of(optimized).steps
    assert [program.signals for program in steps["forward_mae_encoder"].programs] == [()]
    assert [program.signals for program in steps["forward_mae_decoder"].programs] == [(ValueDrift(1),)]
    assert [asked["step"] for asked in policy.asked] == list(range(6))


class ChangedTokens(RefreshPolicy):
    """Takes down how many tokens of a sample changed, and refreshes none."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []

    def choose(self, history: History) -> Refresh:
        assert history.changed is not None
        self.seen.append(history.changed.sum(1).tolist())
        return Refresh(history.tokens if history.step == 0 else 0, history.age)


def test_tokens_that_a_step_drops_did_not_change(mar: MAR) -> None:
    policy = ChangedTokens()
    optimized = marche_fx.transform(mar, refresh=policy, compile=False, verify=False)
    decode(mar, optimized)
    # In the first step all that the encoder sees, four class tokens; then the four decoded in the step before.
    assert policy.seen == [[4, 4]] * 6


def test_exact_sites_of_one_method_leave_the_other_alone(mar: MAR) -> None:
    policies = {"forward_mae_encoder": SelectiveRefresh(0.1), "forward_mae_decoder": DriftRefresh(0.1, exact_sites=1)}
    optimized = marche_fx.transform(mar, refresh=policies, compile=False)
    decode(mar, optimized)
    before = {
        name: [site.node for site in program.plan.sites if program.plan.region.is_before(site.node)]
        for name, step in optimization_of(optimized).steps.items()
        for program in step.programs
    }
    assert {name: len(sites) for name, sites in before.items()} == {"forward_mae_encoder": 0, "forward_mae_decoder": 1}


@pytest.mark.parametrize(
    "names",
    [("forward_mae_encoder",), ("forward_mae_encoder", "decoder"), ("forward_mae_encoder", "forward_mae_decoder", "x")],
)
def test_a_policy_for_some_or_other_methods_is_refused(mar: MAR, names: Sequence[str]) -> None:
    message = rf"each of forward_mae_encoder, forward_mae_decoder, got {', '.join(names)}"
    with pytest.raises(ArgumentError, match=message):
        marche_fx.transform(mar, refresh=dict.fromkeys(names, FullRefresh()))


def test_a_policy_of_another_kind_is_refused_in_a_dict_too(mar: MAR) -> None:
    policies: Any = {"forward_mae_encoder": FullRefresh(), "forward_mae_decoder": 0.1}
    with pytest.raises(ArgumentError, match="must be a refresh policy"):
        marche_fx.transform(mar, refresh=policies)

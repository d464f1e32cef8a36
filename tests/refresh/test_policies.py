"""Refresh policies inside sessions: which rows run, who chooses for whom."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import marche_fx
from marche_fx import (
    AdaptiveBudget,
    ArgumentError,
    AttentionReceived,
    DriftRefresh,
    FullRefresh,
    History,
    PolicyError,
    Refresh,
    RefreshPolicy,
    RowSignal,
    SelectiveRefresh,
    ValueDrift,
)
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.models.mar import MAR
from marche_fx.runtime.open_sessions import current_session
from tests.by_hand import ByHand, moved
from tests.oracle import Oracle
from tests.pages import ran_blocks
from tests.program import oracle_of
from tests.sessions import TOKENS, decode, grid_mar, inputs, positions, records, run, transformer


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


# --------------------------------------------------------------------------------------------------- exact sites


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


# ---------------------------------------------------------------------------------------- a policy per step method


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


# ------------------------------------------------------------------------------------------------ a policy of one's own


def distance(now: Tensor, before: Tensor | None) -> Tensor:
    assert before is not None
    return (now - before).norm(dim=-1)


class FastMovers(RefreshPolicy):
    """What a user would write."""

    signals = (RowSignal(distance, "blocks.0.attention", "k"),)

    def choose(self, history: History) -> Refresh:
        moves = history.smoothed(self.signals[0])
        return Refresh(4, history.age if moves is None else moves * history.age)


def test_a_policy_of_ones_own_refreshes_what_it_ranks_highest() -> None:
    policy = FastMovers()
    optimized = run(policy, steps=5)
    assert [program.signals for program in optimization_of(optimized).steps["forward"].programs] == [policy.signals]
    assert records(optimized)[0].active == TOKENS
    for record in records(optimized)[1:]:
        assert record.active in (8, 16)
        assert ((record.reasons == 3).sum(1) >= 4).all(), "four are asked for, and more where there is room"


made: Any = Refresh
"""For arguments of the wrong type."""


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h: Refresh(4, h.age[:1]), r"Bad must give its priority as \(2, 40\).* got \(1, 40\)"),
        (lambda h: Refresh(4, h.age[..., None]), r"priority as \(2, 40\).* got \(2, 40, 1\)"),
        (lambda h: Refresh(4, h.age.tolist()), r"priority as \(2, 40\).* got list"),
        (lambda h: Refresh(4, h.age * 1j), r"one number for each token"),
        (lambda h: Refresh(4, torch.full_like(h.age, float("nan"))), "Bad gave a priority that holds NaN"),
        (lambda h: Refresh(4, h.age.masked_fill(h.age == 1, float("nan"))), "Bad gave a priority that holds NaN"),
        (lambda h: Refresh(-1, h.age), "int that is not negative, got -1"),
        (lambda h: made(0.1, h.age), r"int that is not negative, got 0\.1"),
        (lambda h: Refresh(True, h.age), "int that is not negative, got True"),
        (lambda h: made(torch.tensor(4), h.age), r"int that is not negative, got tensor\(4\)"),
        (lambda h: Refresh(4), "Bad refreshes 4 of 40 tokens and must give a priority"),
        (lambda h: Refresh(4, torch.ones(2, 40, device="meta")), "priority on meta, and the tokens are on cpu"),
        (lambda h: (4, h.age), "Bad.choose must return a Refresh, got tuple"),
        (lambda h: None, "Bad.choose must return a Refresh, got NoneType"),
    ],
)
def test_an_answer_that_cannot_be_done_is_refused_by_the_name_of_the_policy(
    answer: Callable[[History], Any], message: str
) -> None:
    """Alone, or as a part of a sum."""

    class Bad(RefreshPolicy):
        def choose(self, history: History) -> Refresh:
            return Refresh(history.tokens) if history.step == 0 else answer(history)

    good = Constant(4, torch.arange(TOKENS).expand(2, TOKENS))
    for policy in (Bad(), good + Bad(), Bad() + good, good + (Bad() + good)):
        with pytest.raises(PolicyError, match=message):
            run(policy, steps=2)


class Constant(RefreshPolicy):
    """Refreshes ``count`` tokens by a priority given beforehand."""

    def __init__(self, count: int, priority: Tensor) -> None:
        self.count = count
        self.priority = priority

    def choose(self, history: History) -> Refresh:
        return Refresh(self.count, self.priority)


def test_a_policy_that_repeats_anothers_choice_with_a_priority_of_its_own_is_checked_for_that() -> None:
    class Halved(RefreshPolicy):
        def choose(self, history: History) -> Refresh:
            return replace(self.inner.choose(history), priority=torch.full((2, TOKENS), float("nan")))

        inner = Constant(2, torch.ones(2, TOKENS)) + Constant(2, torch.ones(2, TOKENS))

    with pytest.raises(PolicyError, match="Halved gave a priority that holds NaN"):
        run(Halved(), steps=2)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16, torch.float64])
def test_a_priority_may_have_any_dtype_that_has_an_order(dtype: torch.dtype) -> None:
    first, second = torch.zeros(2, 2, TOKENS, dtype=dtype).unbind()
    first[:, -4:], second[:, 20:24] = 1, 1
    for policy in (Constant(4, first), Constant(4, first) + Constant(4, second)):
        for record in records(run(policy, steps=3))[1:]:
            assert (record.reasons[:, -4:] > 0).all()
    assert (record.reasons[:, 20:24] > 0).all()


def test_no_priority_is_so_high_that_what_changed_or_is_read_does_not_run() -> None:
    for record in records(run(Constant(2, torch.full((2, TOKENS), float("inf"))), steps=5))[1:]:
        assert ((record.reasons == 1).sum(1) == 3).all(), "three tokens are replaced in each step"
        assert (record.reasons[:, :2] > 0).all(), "two are read"


def test_an_infinite_priority_of_the_second_of_two_does_not_push_out_the_first() -> None:
    first = torch.arange(TOKENS, dtype=torch.float32).expand(2, TOKENS)
    both = Constant(8, first) + Constant(8, torch.full((2, TOKENS), float("inf")))
    for record in records(run(both, steps=4))[1:]:
        assert (record.reasons[:, -8:] > 0).all()


def test_nan_of_a_token_that_the_first_of_two_takes_is_refused_too() -> None:
    first = torch.arange(TOKENS, dtype=torch.float32).expand(2, TOKENS)
    with pytest.raises(PolicyError, match="Constant gave a priority that holds NaN"):
        run(Constant(4, first) + Constant(4, first.masked_fill(first == TOKENS - 1, float("nan"))), steps=2)


# ----------------------------------------------------------------------------------------------- adaptive budgets


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


# ------------------------------------------------------------------------------------------------------- the page


@pytest.mark.slow
def test_the_snippets_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(list(ran_blocks("docs/policies.md"))) >= 8
    assert {path.name for path in tmp_path.iterdir()} == {"choices.png", "encoder.png", "policy.json"}

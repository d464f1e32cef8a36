"""A loop that stops decoding some samples of its batch, and keeps the caches of the others."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError, DriftRefresh, FullRefresh, RefreshPolicy, SelectiveRefresh, StalenessRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.api.samples import positions_in
from marche_fx.lazy.tensor import resolved
from marche_fx.models.mar import MAR, mask_by_order
from marche_fx.runtime.records import StepRecord
from marche_fx.runtime.session import Session
from tests.models.text.tiny import tiny_model
from tests.networks import Transformer
from tests.sessions import WIDTH, grid_mar, records

B, N, D, STEPS = 4, 48, 16, 6
POLICIES = (
    SelectiveRefresh(0.3, warmup=1),
    DriftRefresh(0.3, warmup=1),
    StalenessRefresh(0.1, warmup=1, queried=4 / N),
)


def model(*, is_wide: bool = False) -> nn.Module:
    """Rows as wide as the inputs', or so wide that a head computes those that are read."""
    torch.manual_seed(0)
    body = Transformer(N, D, 2, depth=2)
    return (nn.Sequential(body, nn.Linear(3, D)) if is_wide else body).double().eval()


@cache
def transformed(policy: RefreshPolicy, *, verify: bool = False, is_wide: bool = False) -> nn.Module:
    return marche_fx.transform(model(is_wide=is_wide), refresh=policy, compile=False, verify=verify)


def inputs(seed: int) -> list[Tensor]:
    """``[B, N, D]`` of each step, in which two tokens of each sample are replaced."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(B, N, D, generator=generator, dtype=torch.float64)
    found = [x]
    for step in range(1, STEPS):
        x = x.clone()
        x[:, 2 * step : 2 * step + 2] = torch.randn(B, 2, D, generator=generator, dtype=torch.float64)
        found.append(x)
    return found


@torch.no_grad()
def decode(policy: RefreshPolicy, seed: int, kept: dict[int, list[int]], **options: Any) -> list[Tensor]:
    """What is read of each step, eight tokens of a sample; before the steps ``kept`` names samples that go on."""
    optimized, here, found = transformed(policy, **options), torch.arange(B), []
    with marche_fx.decoding(optimized):
        for step, x in enumerate(inputs(seed)):
            if step in kept:
                here = here[kept[step]]
                marche_fx.keep_samples(optimized, torch.tensor(kept[step]))
            found.append(resolved(optimized(x[here])[:, 2 * step : 2 * step + 8]).clone())
    return found


def session_of(optimized: nn.Module) -> Session:
    session = optimization_of(optimized).last_session
    assert session is not None
    return session


def is_active(record: StepRecord) -> Tensor:
    return record.reasons > 0


def is_computed(record: StepRecord) -> Tensor:
    assert record.computed is not None
    return record.computed


@st.composite
def kept_samples(draw: st.DrawFn) -> dict[int, list[int]]:
    """Before which steps which samples are kept, in any order, by their positions among those that are left."""
    found: dict[int, list[int]] = {}
    left = B
    for step in sorted(draw(st.sets(st.integers(1, STEPS - 1), min_size=1, max_size=2))):
        found[step] = draw(st.permutations(range(left)))[: draw(st.integers(1, left))]
        left = len(found[step])
    return found


@pytest.mark.parametrize("is_wide", [False, True])
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@settings(max_examples=12)
@given(kept_samples(), st.integers(0, 99))
def test_samples_that_go_on_are_decoded_as_if_the_others_did_too(
    policy: RefreshPolicy, is_wide: bool, kept: dict[int, list[int]], seed: int
) -> None:
    """Equally many tokens of each sample are replaced and read, so that those computed are the same."""
    whole, here = decode(policy, seed, {}, is_wide=is_wide), torch.arange(B)
    for step, (own, other) in enumerate(zip(decode(policy, seed, kept, is_wide=is_wide), whole, strict=True)):
        here = here[kept[step]] if step in kept else here
        torch.testing.assert_close(own, other[here])


def test_no_step_is_in_full_where_samples_are_dropped_and_each_costs_its_samples_alone() -> None:
    policy = SelectiveRefresh(0.3, warmup=1)
    decode(policy, 0, {2: [0, 3], 4: [1]})
    own = records(transformed(policy))
    assert [record.program.samples for record in own] == [4, 4, 2, 2, 1, 1]
    first, *others = [record.counts for record in own]
    assert first == (N,)
    assert set(others) == {(24,)}, "15 refreshed, two replaced and six others read, in buckets"


def test_a_call_of_fewer_samples_than_ever_before_is_verified_in_full_once() -> None:
    policy = SelectiveRefresh(0.2, warmup=1)
    for full in ([0, 2, 4], [0]):
        decode(policy, 0, {2: [0, 3], 4: [1]}, verify=True)
        counts = [record.counts for record in records(transformed(policy, verify=True))]
        assert [step for step, count in enumerate(counts) if count == (N,)] == full


@torch.no_grad()
def test_what_is_left_of_an_earlier_call_stays_what_it_is() -> None:
    policy, given = StalenessRefresh(0.1, warmup=1), inputs(0)
    found = []
    for drops in (False, True):
        optimized = transformed(policy)
        with marche_fx.decoding(optimized):
            optimized(given[0])[:, :2].sum()
            held = optimized(given[1])[:, 2:10] * 2
            if drops:
                marche_fx.keep_samples(optimized, torch.tensor([False, True, False, True]))
            own = given[2][1::2] if drops else given[2]
            resolved(optimized(own)[:, 4:12])
            found.append(resolved(held).clone())
    torch.testing.assert_close(*found)


@torch.no_grad()
def test_what_the_loop_still_holds_of_the_last_call_is_not_read_on_account_of_it() -> None:
    words = tiny_model().eval()
    optimized = marche_fx.transform(words, refresh=SelectiveRefresh(0.0, warmup=1), compile=False, verify=False)
    ids = torch.zeros(3, N, dtype=torch.long)
    with marche_fx.decoding(optimized):
        for step in range(8):
            if step == 6:
                ids = ids[:2]
                marche_fx.keep_samples(optimized, torch.tensor([0, 1]))
            masked = ids == 0
            logits = optimized(ids)
            predicted = logits.argmax(-1)
            sureness = logits.softmax(-1).amax(-1).masked_fill(~masked, -torch.inf)
            sureness[:, 8:] = -torch.inf
            chosen = torch.zeros_like(masked).scatter(1, sureness.topk(1, 1).indices, True)
            ids = torch.where(chosen, predicted, ids)
        ids.sum().item()
    assert all(own.rows is not None for call in session_of(optimized).log.calls for own in call.reads)
    assert [record.read for record in records(optimized)] == [(N,), *[(8,)] * 7]


@torch.no_grad()
def test_until_the_next_call_results_are_computed_when_they_are_read() -> None:
    optimized, given = transformed(StalenessRefresh(0.1, warmup=1)), inputs(0)
    with marche_fx.decoding(optimized):
        resolved(optimized(given[0])[:, :8])
        z = optimized(given[1])
        resolved(z[:, :8])
        held = z[2, 24:32]
        marche_fx.keep_samples(optimized, torch.tensor([2]))
        resolved(held)
        resolved(optimized(given[2][2:3])[:, :8])
    assert [record.again for record in records(optimized)] == [False, False, True, False]
    assert is_computed(records(optimized)[2])[2, 24:32].all()


@torch.no_grad()
def test_samples_are_dropped_twice_between_two_calls() -> None:
    policy, given, found = StalenessRefresh(0.1, warmup=1), inputs(0), []
    for drops in ([[3, 1, 0], [2, 1]], [[0, 1]]):
        optimized = transformed(policy)
        with marche_fx.decoding(optimized):
            for x in given[:3]:
                optimized(x)[:, :8].sum().item()
            for kept in drops:
                marche_fx.keep_samples(optimized, torch.tensor(kept))
            found.append(resolved(optimized(given[3][:2])[:, 6:14]).clone())
    assert records(optimized)[-1].counts == (16,)
    torch.testing.assert_close(*found)


@torch.no_grad()
def test_steps_that_are_called_with_some_samples_each_are_refused() -> None:
    optimized, (x, *_) = transformed(FullRefresh()), inputs(0)
    with marche_fx.decoding(optimized):
        for name, own in (("all", x), ("some", x[:2])):
            with marche_fx.stream(name):
                resolved(optimized(own)[:, :1])
        with pytest.raises(ArgumentError, match="calls them with 2 and 4 samples"):
            marche_fx.keep_samples(optimized, torch.tensor([0]))


@torch.no_grad()
def test_which_results_were_left_out_and_how_old_others_are_is_known_of_each_sample() -> None:
    optimized, given = transformed(StalenessRefresh(0.1, warmup=1)), inputs(0)
    read = torch.zeros(B, N, dtype=torch.bool)
    for sample in range(B):
        read[sample, 10 * sample : 10 * sample + 6] = True
    with marche_fx.decoding(optimized):
        for x in given[:3]:
            resolved(optimized(x)[read])
        marche_fx.keep_samples(optimized, torch.tensor([2]))
        resolved(optimized(given[3][2:3]))
    *before, last = records(optimized)
    active, computed = ([own(record)[2] for record in before[1:]] for own in (is_active, is_computed))
    left_out = (torch.stack(active) & ~torch.stack(computed)).any(0)
    assert left_out.any()
    assert is_computed(last)[0][left_out].all()
    (read_as_a_whole,) = session_of(optimized).log.calls[-1].reads
    fresh = torch.stack([*computed, is_computed(last)[0]])
    assert not fresh.any(0).all()
    assert read_as_a_whole.oldest == 3, "since the first step, in which all were computed"


@torch.no_grad()
def test_how_old_rows_are_is_known_of_each_sample() -> None:
    optimized, kept = transformed(StalenessRefresh(0.1, warmup=1)), torch.tensor([3, 1])
    with marche_fx.decoding(optimized) as session:
        for step, x in enumerate(inputs(0)[:3]):
            places = torch.arange(N) + torch.arange(B)[:, None] * 10
            resolved(optimized(x)[(places >= 10 * step) & (places < 10 * step + 8)])
        (state,) = session.states
        before = state.age(state.calls)
        marche_fx.keep_samples(optimized, kept)
        held = optimized(inputs(0)[3][kept])
        assert torch.equal(state.age(state.calls), before[kept] + 1)
        assert not torch.equal(before[kept], before[:2])
        resolved(held[:, :1])


@pytest.mark.parametrize("between", [False, True], ids=["between steps", "between methods"])
@torch.no_grad()
def test_both_methods_of_a_model_go_on_with_the_samples(between: bool) -> None:
    mar = grid_mar()
    optimized: Any = marche_fx.transform(mar, refresh=SelectiveRefresh(0.2, warmup=1), compile=False, verify=False)
    generator = torch.Generator().manual_seed(0)
    orders, tokens = mar.sample_orders(3, generator), torch.randn(3, mar.seq_len, 4, generator=generator)
    found = []
    for kept in (torch.arange(3), torch.tensor([2, 0])):
        here, read = torch.arange(3), []
        with marche_fx.decoding(optimized):
            for step in range(5):
                if step == 3 and not between:
                    here = here[kept]
                    marche_fx.keep_samples(optimized, kept)
                now, _ = masks(mar, orders[here], step)
                x = optimized.forward_mae_encoder(tokens[here] * (1 - now)[..., None], now, torch.ones(len(now), WIDTH))
                if step == 3 and between:
                    here, x = here[kept], x[kept]
                    marche_fx.keep_samples(optimized, kept)
                now, after = masks(mar, orders[here], step)
                z = optimized.forward_mae_decoder(x, now)[(now - after).nonzero(as_tuple=True)]
                read.append(resolved(z).clone().unflatten(0, (len(here), -1)))
        counts = [record.active for record in records(optimized)]
        assert max(counts[2:]) < mar.seq_len
        found.append((read, counts))
    (whole, all_counts), (own, own_counts) = found
    assert own_counts == all_counts
    torch.testing.assert_close([*whole[:3], *(each[[2, 0]] for each in whole[3:])], own)


def masks(mar: MAR, orders: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """``[B, N]`` in a step and after it, of four tokens."""
    first, second = (mask_by_order(mar.seq_len - 4 * at, orders, len(orders), mar.seq_len) for at in (step, step + 1))
    return first, second


@torch.no_grad()
def test_what_cannot_be_kept_is_refused_by_name() -> None:
    optimized, (x, *_) = transformed(FullRefresh()), inputs(0)
    with pytest.raises(ArgumentError, match="is for a loop inside"):
        marche_fx.keep_samples(optimized, torch.arange(2))
    with marche_fx.decoding(optimized):
        with pytest.raises(ArgumentError, match="has called a step of the model"):
            marche_fx.keep_samples(optimized, torch.arange(2))
        optimized(x)
        marche_fx.keep_samples(optimized, torch.tensor([1, 3]))
        with pytest.raises(ArgumentError, match="kept 2 samples, and the next call has 3"):
            optimized(x[:3])
        resolved(optimized(x[1::2])[:, :1])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (torch.ones(3, dtype=torch.bool), "a mask of 3 samples, and the last call had 4"),
        (torch.tensor([0, 4]), r"outside of the 4 samples of the last call: \[0, 4\]"),
        (torch.tensor([-1]), "outside of the 4 samples"),
        (torch.tensor([0.0]), r"or their positions \[..\], got torch.float32 \[1\]"),
        (torch.ones(4, 1, dtype=torch.bool), r"got torch.bool \[4, 1\]"),
        ([0, 1], "got list"),
    ],
)
def test_what_tells_no_samples_is_refused(kept: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        positions_in(kept, B)


def test_a_mask_and_its_positions_are_the_same() -> None:
    assert positions_in(torch.tensor([True, False, True, False]), 4).tolist() == [0, 2]
    assert positions_in(torch.tensor([2, 0]), 4).tolist() == [2, 0]

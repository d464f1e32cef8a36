"""A recorded generation, replayed under policies."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import ArgumentError, FullRefresh, SelectiveRefresh, StalenessRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.models.drift import teacher_forced_drift
from marche_fx.models.mar import MAR
from marche_fx.tuning.replay import Call, Earlier, Read, Recording, record, replay, replay_original, told
from tests.networks import MaskedTextModel, Transformer, small_mar

ORDERS = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(seed)) for seed in range(2)])
LABELS = torch.tensor([1, 2])


def mar() -> MAR:
    torch.manual_seed(0)
    return small_mar(side=4).double().eval()


def generation(given: nn.Module) -> Tensor:
    assert isinstance(given, MAR)
    generator = torch.Generator().manual_seed(3)
    return given.sample_tokens(2, 6, 2.0, labels=LABELS, orders=ORDERS, generator=generator)


@cache
def recorded() -> Recording:
    return record(mar(), generation)


def test_a_policy_that_computes_all_has_no_drift() -> None:
    found = replay(recorded(), FullRefresh())
    assert found.drift < 1e-12
    assert len(found.drift_by_step) == 6
    assert found.rows_ratio == 1


def test_the_decoder_gets_what_the_policys_own_encoder_gives() -> None:
    recording = recorded()
    ((first, second, *_),) = recording.sessions
    assert (first.step, second.step) == ("forward_mae_encoder", "forward_mae_decoder")
    assert second.arguments[0][0] == Earlier(0, 0)
    assert not first.reads, "only what the loop reads of the last step counts"
    assert second.reads


@pytest.mark.parametrize("policy", [SelectiveRefresh(0.0, warmup=1), StalenessRefresh(0.2, warmup=2)])
def test_drift_is_what_feeding_the_same_tokens_by_hand_gives(policy: marche_fx.RefreshPolicy) -> None:
    found = replay(recorded(), policy)
    model = mar()
    images = generation(model)
    optimized = marche_fx.transform(model, refresh=policy, compile=False, verify=False)
    by_hand = teacher_forced_drift(model, optimized, images, ORDERS, LABELS, 6, 2.0)
    assert found.drift > 1e-3
    # Images pass through pixels and back, which rounds.
    assert found.drift_by_step == pytest.approx(by_hand, rel=1e-3, abs=1e-6)


def text_loop(given: nn.Module) -> None:
    """Fill in masked tokens, two a step, by confidence."""
    ids = torch.zeros(2, 20, dtype=torch.long)
    with marche_fx.decoding(given):
        for step in range(5):
            logits = given(ids, torch.zeros(2))
            place = slice(2 * step, 2 * step + 2)
            ids[:, place] = logits[:, place].argmax(-1) + 1


def test_a_loop_of_ones_own_is_recorded_with_the_rows_that_it_reads() -> None:
    torch.manual_seed(0)
    model = MaskedTextModel(20, 16, 2).eval()
    recording = record(model, text_loop)
    ((*calls,),) = recording.sessions
    assert len(calls) == 5
    assert [read.rows is not None and read.rows.nonzero().tolist() for read in calls[1].reads] == [
        [[0, 2], [0, 3], [1, 2], [1, 3]]
    ]
    # Arguments are copies: the loop writes into its ids.
    assert calls[0].arguments[0][0].eq(0).all()
    assert calls[1].arguments[0][0][:, :2].ne(0).all()
    assert replay(recording, FullRefresh()).drift < 1e-6
    assert replay(recording, SelectiveRefresh(0.0, warmup=1)).drift > 1e-6
    assert replay_original(recording) > 0


def test_with_a_query_the_rows_that_it_names_are_compared() -> None:
    torch.manual_seed(0)
    model = MaskedTextModel(20, 16, 2).eval()
    recording = record(model, text_loop, query=lambda ids, time: ids == 0)
    ((_, second, *_),) = recording.sessions
    (read,) = second.reads
    assert read.rows is not None
    assert read.rows.sum(1).tolist() == [18, 18]
    assert replay(recording, FullRefresh()).drift < 1e-6


def test_two_sessions_are_two_generations() -> None:
    model = mar()

    def twice(given: nn.Module) -> None:
        generation(given)
        generation(given)

    recording = record(model, twice)
    assert [len(calls) for calls in recording.sessions] == [12, 12]
    once = replay(recorded(), SelectiveRefresh(0.1, warmup=1))
    both = replay(recording, SelectiveRefresh(0.1, warmup=1))
    assert both.drift_by_step == pytest.approx(once.drift_by_step)
    assert both.flops_ratio == pytest.approx(once.flops_ratio)


def test_a_run_without_a_session_is_refused() -> None:
    model = Transformer(8, 8, 2).eval()

    def outside(given: nn.Module) -> None:
        given(torch.zeros(1, 8, 8))

    with pytest.raises(ArgumentError, match="inside of a session"):
        record(model, outside)


def test_the_recorded_model_is_left_alone() -> None:
    model = mar()
    before = set(vars(model))
    recording: Recording = record(model, generation)
    assert set(vars(model)) == before
    assert recording.model is model


def test_what_recorded_once_decodes_as_before() -> None:
    """Also where the run that was recorded failed."""
    transformed: dict[Any, nn.Module] = {}

    def failing(given: nn.Module) -> None:
        generation(given)
        raise ValueError("a fault of the loop's")

    with pytest.raises(ValueError, match="of the loop's"):
        record(mar(), failing, candidates=transformed)
    (exact,) = transformed.values()
    steps = optimization_of(exact).steps
    assert {name: vars(exact)[name] for name in steps} == steps
    with torch.no_grad():
        torch.testing.assert_close(generation(exact), generation(mar()))


def test_a_digest_tells_generations_apart() -> None:
    torch.manual_seed(0)
    model = MaskedTextModel(20, 16, 2).eval()

    def loop(start: int = 0, steps: int = 3, read: int = 2, time: float = 0.0) -> Callable[[nn.Module], None]:
        def run(given: nn.Module) -> None:
            ids = torch.full((2, 20), start)
            with marche_fx.decoding(given):
                for step in range(steps):
                    given(ids, torch.full((2,), time))[:, step : step + read].sum()

        return run

    assert record(model, loop()).digest() == record(model, loop()).digest()
    runs = [loop(), loop(start=1), loop(steps=4), loop(read=3), loop(time=0.5)]
    assert len({record(model, own).digest() for own in runs}) == len(runs)
    before = record(model, loop()).digest()
    with torch.no_grad():
        next(model.parameters()).mul_(1.1)
    assert record(model, loop()).digest() != before, "what the model makes of its arguments counts too"


def test_a_digest_tells_calls_apart() -> None:
    x = torch.zeros(2, 3)
    calls = [
        Call("forward", ((x,), {})),
        Call("other", ((x,), {})),
        Call("forward", ((x + 1,), {})),
        Call("forward", ((x.double(),), {})),
        Call("forward", ((x.T,), {})),
        Call("forward", ((), {"x": x})),
        Call("forward", ((x, 1), {})),
        Call("forward", ((x, 1.0), {})),
        Call("forward", ((x, None), {})),
        Call("forward", ((Earlier(0, 0),), {})),
        Call("forward", ((x,), {}), [Read(0, None, None, x)]),
        Call("forward", ((x,), {}), [Read(0, x > 0, None, x[x > 0])]),
    ]
    assert len(set(map(told, calls))) == len(calls)
    assert told(calls[0]) == told(Call("forward", ((x.clone(),), {})))
    model = nn.Linear(1, 1)
    one, two = (Recording(model, None, None, None, own) for own in (((calls[0],) * 2,), ((calls[0],),) * 2))
    assert one.digest() != two.digest(), "sessions count"

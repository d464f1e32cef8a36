"""Sessions whose steps are recorded and replayed compute what they compute without."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import marche_fx
from marche_fx import DriftRefresh, FullRefresh, InterleavedRefresh, RefreshPolicy, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.models.mar import mask_by_order
from marche_fx.models.text import TextDiffusion, generate
from tests.networks import MaskedTextModel, RotaryAttention, Transformer
from tests.runtime.graphs.networks import Sorted, counts_of, graphed, store_of
from tests.runtime.graphs.tape import Tapes
from tests.sessions import TOKENS, WIDTH, decode, grid_mar, inputs, positions, records, transformer

POLICIES: dict[str, RefreshPolicy] = {
    "selective": SelectiveRefresh(0.1, warmup=1),
    "drift": DriftRefresh(0.2, warmup=1),
    "interleaved": InterleavedRefresh(period=3, warmup=1),
    "full": FullRefresh(),
}

READS: dict[str, Callable[[Tensor], Any]] = {
    "rows": lambda z: z[:, 5:9].clone(),
    "whole": lambda z: z + 0,
    "one sample": lambda z: z[1, 3:30].clone(),
    "nothing": lambda z: None,
    "held": lambda z: z,
}


@cache
def pair(model: str, policy: str) -> tuple[nn.Module, nn.Module]:
    """A model transformed without graphs and with them; captured once."""
    torch.manual_seed(0)
    kinds: dict[str, Callable[[], nn.Module]] = {
        "fused": lambda: Transformer(TOKENS, WIDTH, 2),
        "rotary": lambda: Transformer(TOKENS, WIDTH, 4, attention=RotaryAttention),
        "text": lambda: MaskedTextModel(TOKENS, WIDTH, 4),
    }
    original = kinds[model]().double().eval()
    options: dict[str, Any] = {"refresh": POLICIES[policy], "verify": False}
    return marche_fx.transform(original, compile=False, **options), graphed(original, **options)


@pytest.mark.parametrize("model", ["fused", "rotary", "text"])
@given(
    policy=st.sampled_from([*POLICIES]),
    reads=st.lists(st.sampled_from([*READS]), min_size=4, max_size=8),
    seed=st.integers(0, 10_000),
    sessions=st.integers(1, 2),
)
@settings(max_examples=5)
@torch.no_grad()
def test_any_session_is_what_it_is_without_graphs(
    model: str, policy: str, reads: list[str], seed: int, sessions: int
) -> None:
    """The same tokens and the same values, also of what is held until all sessions are over."""
    plain, recorded = pair(model, policy)
    found: list[list[Any]] = []
    chosen: list[list[Tensor]] = []
    for optimized in (plain, recorded):
        generator = torch.Generator().manual_seed(seed)
        held, tokens = [], []
        for _ in range(sessions):
            x = torch.randn(2, TOKENS, WIDTH, generator=generator, dtype=torch.float64)
            ids = torch.randint(7, (2, TOKENS), generator=generator)
            with marche_fx.decoding(optimized):
                for read in reads:
                    replaced = torch.randperm(TOKENS, generator=generator)[: 1 + seed % 5]
                    x = x.clone()
                    x[:, replaced] = torch.randn(2, len(replaced), WIDTH, generator=generator).double()
                    ids = ids.index_fill(1, replaced, seed % 7)
                    call = (ids, torch.zeros(2).double()) if model == "text" else (x,)
                    held.append(READS[read](optimized(*call)))
            tokens += [positions(own) for own in records(optimized)]
        found.append([None if own is None else own + 0 for own in held])
        chosen.append(tokens)
    for one, other in zip(*chosen, strict=True):
        assert torch.equal(one, other)
    for one, other in zip(*found, strict=True):
        if one is not None:
            torch.testing.assert_close(other, one, atol=1e-9, rtol=1e-9)
    assert not store_of(recorded).told


@torch.no_grad()
def test_later_sessions_replay_what_earlier_ones_recorded() -> None:
    optimized = graphed(transformer(2), refresh=SelectiveRefresh(0.1, warmup=1))
    decoded(optimized)
    (counts,) = counts_of(optimized)
    captures = counts.captures
    assert captures == 2, "one for all tokens and one for a bucket of them, each before its second use"
    before = counts.replays
    decoded(optimized)
    assert counts.captures == captures
    assert counts.replays == before + 8
    assert counts.steps == 16
    assert not counts.without


def decoded(optimized: nn.Module, steps: int = 8) -> list[Tensor]:
    with marche_fx.decoding(optimized):
        return [optimized(x)[:, 5:9].clone() for x in inputs(steps)]


LATE: dict[str, Callable[[Tensor], Tensor]] = {
    "as it is": lambda z: z,
    "a view that waits": lambda z: z.transpose(1, 2),
    "a view that does not": lambda z: z.unfold(1, 4, 4),
    "a copy": lambda z: z.clone(),
}


@torch.no_grad()
def test_what_a_loop_holds_stays_when_a_later_session_has_the_caches() -> None:
    plain, recorded = pair("fused", "selective")
    for name, read in LATE.items():
        found = []
        for optimized in (plain, recorded):
            held = []
            for scale in (1.0, -1.0):
                with marche_fx.decoding(optimized):
                    held += [read(optimized(scale * x)) for x in inputs(4)]
            # One session for each call.
            held += [optimized(x) for x in inputs(2)]
            found.append([own + 0 for own in held])
        for own, known in zip(found[1], found[0], strict=True):
            torch.testing.assert_close(own, known, atol=1e-9, rtol=0.0, msg=name)


@torch.no_grad()
def test_signals_are_those_of_their_step() -> None:
    """Nobody may find them overwritten by the next."""
    optimized = graphed(transformer(2), refresh=POLICIES["drift"], verify=False)
    decoded(optimized, 1)
    (program,) = optimization_of(optimized).steps["forward"].programs
    graphs, kept = program.graphs, list[tuple[Tensor, Tensor]]()
    assert graphs is not None
    run = graphs.run

    def watched(*args: Any) -> Any:
        signals = run(*args)
        kept.extend((signal, signal.clone()) for signal in signals)
        return signals

    graphs.run = watched  # type: ignore[method-assign, assignment]
    decoded(optimized)
    assert graphs.counts.replays > 4
    for own, copy in kept:
        torch.testing.assert_close(own, copy, equal_nan=True, atol=0.0, rtol=0.0)
    assert kept


@torch.no_grad()
def test_nothing_of_a_session_is_left_in_the_caches_of_the_next() -> None:
    """NaN in rows that the next one drops would come through any mask."""
    mar = grid_mar()
    plain, recorded = marche_fx.transform(mar, compile=False), graphed(mar)
    rows = []
    for optimized in (plain, recorded):
        generator = torch.Generator().manual_seed(0)
        orders, tokens = mar.sample_orders(2, generator), torch.randn(2, mar.seq_len, 4, generator=generator)
        for count, value in ((4, float("nan")), (30, 0.0)):
            mask = mask_by_order(count, orders, 2, mar.seq_len)
            with marche_fx.decoding(optimized):
                x = optimized.forward_mae_encoder(tokens + value, mask, torch.ones(2, WIDTH))  # type: ignore[operator]
                rows.append(optimized.forward_mae_decoder(x, mask) + 0)  # type: ignore[operator]
    assert rows[1].isfinite().all()
    torch.testing.assert_close(rows[3], rows[1], atol=1e-4, rtol=0.0)


@torch.no_grad()
def test_sessions_beside_one_another_have_memory_of_their_own() -> None:
    plain = marche_fx.transform(transformer(2), refresh=POLICIES["selective"], compile=False)
    recorded = graphed(transformer(2), refresh=POLICIES["selective"])
    found = []
    for optimized in (plain, recorded):
        for _ in range(2):
            one, other = (marche_fx.session(optimized) for _ in range(2))
            rows = []
            for x in inputs(6):
                with one:
                    rows.append(optimized(x)[:, 5:9].clone())
                with other:
                    rows.append(optimized(-x)[:, 5:9].clone())
            one.close()
            other.close()
        found.append(rows)
    for own, known in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(own, known, atol=1e-9, rtol=0.0)
    (counts,) = counts_of(recorded)
    assert counts.replays > 12


@torch.no_grad()
def test_weights_may_be_written_replaced_and_moved_in_memory() -> None:
    model = transformer(2)
    plain = marche_fx.transform(model, refresh=POLICIES["selective"], compile=False)
    recorded = graphed(model, refresh=POLICIES["selective"])
    assert isinstance(model.head, nn.Linear)
    linear = model.blocks[0].mlp.fc1  # type: ignore[union-attr]
    assert isinstance(linear, nn.Linear)

    def compare() -> None:
        for own, known in zip(decoded(recorded), decoded(plain), strict=True):
            torch.testing.assert_close(own, known, atol=1e-9, rtol=0.0)

    compare()
    linear.weight.mul_(2.0)
    compare()
    (counts,) = counts_of(recorded)
    captures = counts.captures
    linear.weight.data = linear.weight.data * 0.5
    compare()
    assert store_of(recorded).dropped == 2
    linear.weight = nn.Parameter(linear.weight.detach() + 1.0)
    compare()
    assert counts.captures > captures


@torch.no_grad()
def test_a_mar_decodes_as_it_does_without() -> None:
    """Tokens that are dropped, two step methods, and one priority for both."""
    mar = grid_mar()
    plain = marche_fx.transform(mar, compile=False)
    recorded = graphed(mar)
    for _ in range(2):
        for optimized in (plain, recorded):
            decode(mar, optimized)  # type: ignore[arg-type]
        for own, known in zip(records(recorded), records(plain), strict=True):
            assert torch.equal(own.reasons, known.reasons)
    rows = []
    for optimized in (plain, recorded):
        generator = torch.Generator().manual_seed(0)
        orders, tokens = mar.sample_orders(2, generator), torch.randn(2, mar.seq_len, 4, generator=generator)
        mask = mask_by_order(12, orders, 2, mar.seq_len)
        with marche_fx.decoding(optimized):
            for _ in range(3):
                x = optimized.forward_mae_encoder(tokens, mask, torch.ones(2, WIDTH))  # type: ignore[operator]
                rows.append(optimized.forward_mae_decoder(x, mask) + 0)  # type: ignore[operator]
                tokens = tokens * 1.001
    for own, known in zip(rows[3:], rows[:3], strict=True):
        torch.testing.assert_close(own, known, atol=1e-4, rtol=0.0)
    assert all(own.replays and not own.without for own in counts_of(recorded))


@torch.no_grad()
def test_a_wide_result_of_which_rows_are_kept() -> None:
    torch.manual_seed(0)
    model = TextDiffusion(200, width=64, depth=2, heads=2, hidden=96).double().eval()
    prompt = torch.randint(1, 200, (2, 16), generator=torch.Generator().manual_seed(1))
    plain, recorded = marche_fx.transform(model, compile=False), graphed(model)
    for _ in range(2):
        texts = []
        for optimized in (plain, recorded):
            with marche_fx.decoding(optimized):
                texts.append(generate(optimized, prompt, 32, mask_id=0, block_length=16, steps_per_block=8))
        assert torch.equal(*texts)
    assert sum(own.replays for own in counts_of(recorded)) > 8


@torch.no_grad()
def test_samples_that_go_on_alone_have_other_buffers() -> None:
    plain = marche_fx.transform(transformer(2), refresh=POLICIES["selective"], compile=False)
    recorded = graphed(transformer(2), refresh=POLICIES["selective"])
    kept = torch.tensor([1])
    for _ in range(2):
        found = []
        for optimized in (plain, recorded):
            rows = []
            with marche_fx.decoding(optimized):
                for step, x in enumerate(inputs(8)):
                    if step == 4:
                        marche_fx.keep_samples(optimized, kept)
                    rows.append(optimized(x if step < 4 else x[kept])[:, 5:9])
            found.append([own + 0 for own in rows])
        for own, known in zip(found[1], found[0], strict=True):
            torch.testing.assert_close(own, known, atol=1e-9, rtol=0.0)


@torch.no_grad()
def test_inference_mode_may_come_and_go() -> None:
    plain = marche_fx.transform(transformer(2), refresh=POLICIES["selective"], compile=False)
    recorded = graphed(transformer(2), refresh=POLICIES["selective"])
    for _ in range(2):
        found = []
        for optimized in (plain, recorded):
            with marche_fx.decoding(optimized):
                rows = []
                for step, x in enumerate(inputs(8)):
                    with torch.no_grad() if step % 3 == 1 else torch.inference_mode():
                        rows.append(optimized(x)[:, 5:9].clone())
            found.append(rows)
        for own, known in zip(found[1], found[0], strict=True):
            torch.testing.assert_close(own, known, atol=1e-9, rtol=0.0)


@torch.no_grad()
def test_a_recording_that_fails_anywhere_leaves_nothing_half_made() -> None:
    """At an operator here and there: the step is what it would have been, and so are those after it."""
    expected = decoded(marche_fx.transform(transformer(2), refresh=POLICIES["drift"], compile=False))
    optimized = graphed(transformer(2), refresh=POLICIES["drift"], verify=False)
    store = store_of(optimized)
    failing: list[int] = []
    for number in [0, *range(1, 1000, 37)]:
        tapes = Tapes(fail=number.__eq__)
        store.recorders, store.make = {}, lambda _, tapes=tapes: tapes  # type: ignore[misc]
        forget_graphs(optimized)
        for own, known in zip(decoded(optimized), expected, strict=True):
            torch.testing.assert_close(own, known, atol=1e-9, rtol=0.0)
        (counts,) = counts_of(optimized)
        if number > tapes.operators:
            break
        if number:
            failing.append(number)
            assert len(counts.apart) == 1
            assert not store.stopped
    assert len(failing) > 2


@torch.no_grad()
def test_children_that_are_called_as_they_are_run_between_graphs() -> None:
    options: dict[str, Any] = {"refresh": POLICIES["drift"], "token_wise": "mixtures.*"}
    expected = decoded(marche_fx.transform(Sorted().eval(), compile=False, **options))
    optimized = graphed(Sorted().eval(), **options)
    for _ in range(2):
        for own, known in zip(decoded(optimized), expected, strict=True):
            torch.testing.assert_close(own, known, atol=1e-9, rtol=0.0)
    (counts,) = counts_of(optimized)
    # As many as there are, none of which was tried.
    assert {*counts.apart.values()} == {"it calls a child as it is, whose work may be other work in each step"}
    assert counts.replays > 0
    assert not counts.without


def forget_graphs(optimized: nn.Module) -> None:
    """As if nothing had been recorded yet."""
    store_of(optimized).idle.clear()
    for step in optimization_of(optimized).steps.values():
        for program in step.programs:
            assert program.graphs is not None
            program.graphs.apart.clear()
    gc.collect()

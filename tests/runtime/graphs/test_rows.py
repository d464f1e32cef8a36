"""Active rows padded to a bucket: few sizes, and nothing else is another."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from marche_fx import AttentionReceived, RowSignal, Signal, ValueDrift
from marche_fx.passes.rewrite.hooks import insert_hooks
from marche_fx.runtime.graphs.rows import SMALLEST, ActiveRows, blank_rows, bucket, fill
from marche_fx.runtime.measure import inserter
from tests.networks import CausalAttention, MaskedTextModel, RotaryAttention, Transformer, WithConvolution
from tests.program import Program

TOKENS, WIDTH = 40, 8


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_a_bucket_is_little_larger_than_what_it_is_for(count: int, more: int) -> None:
    most = count + more - 1
    found = bucket(count, most)
    assert count <= found <= most
    assert found == most or found % SMALLEST == 0
    assert found - count <= max(SMALLEST - 1, found / 3)
    assert bucket(found, most) == found


def test_there_are_few_buckets() -> None:
    sizes = {bucket(count, 4096) for count in range(1, 4097)}
    assert len(sizes) == 18
    assert sorted(sizes)[:7] == [8, 16, 24, 32, 48, 64, 96]


def rows_of(active: Tensor, queried: Tensor, *, skips_unread: bool) -> ActiveRows:
    """As `StepState` makes them: numbers of the queried first, then of others; all where none is queried."""
    among = queried.gather(1, active)
    count = int(among.sum(1).amax()) or active.shape[1]
    rows = among.float().topk(count, 1).indices
    every = torch.arange(active.shape[1]).expand_as(active)
    return ActiveRows([active], [rows if skips_unread else every], [rows], [among.gather(1, rows)], skips_unread)


MODELS: dict[str, Callable[[], nn.Module]] = {
    "fused": lambda: Transformer(TOKENS, WIDTH, 2),
    "rotary": lambda: Transformer(TOKENS, WIDTH, 4, attention=RotaryAttention),
    "causal": lambda: Transformer(TOKENS, WIDTH, 2, attention=CausalAttention),
    "convolution": lambda: WithConvolution(TOKENS, WIDTH, 2),
    "text": lambda: MaskedTextModel(TOKENS, WIDTH, 4),
}


def energy(now: Tensor, before: Tensor | None) -> Tensor:
    return now.norm(dim=-1) if before is None else (now - before).norm(dim=-1)


SIGNALS: tuple[Signal, ...] = (AttentionReceived("all"), ValueDrift("all"))
WITH_ROWS: tuple[Signal, ...] = (*SIGNALS, RowSignal(energy, "blocks.1.attention", "k"))


@cache
def programs(name: str, skip_unread: bool) -> tuple[Program, Program]:
    """One for padded steps and one for others."""
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    signals = WITH_ROWS if name in ("fused", "causal") else SIGNALS
    first = Program(model, "forward", inputs_of(name), skip_unread=skip_unread)
    found = first, Program(model, "forward", inputs_of(name), skip_unread=skip_unread, plan=first.plan)
    for own in found:
        own.split, _ = insert_hooks(own.split, own.plan, [inserter(signal) for signal in signals])
    return found


def inputs_of(name: str) -> list[Tensor]:
    if name == "text":
        return [torch.randint(7, (2, TOKENS)), torch.zeros(2, dtype=torch.float64)]
    return [torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)]


@pytest.mark.parametrize("name", MODELS)
@given(seed=st.integers(0, 10_000), skips=st.booleans(), some=st.booleans())
@settings(max_examples=6)
@torch.no_grad()
def test_padded_steps_are_those_of_the_oracle(name: str, seed: int, skips: bool, some: bool) -> None:
    """Results to the oracle, and signals to the same step without padding."""
    padded, plain = programs(name, skips)
    skips = skips and bool(plain.split.read_only)
    padded.reset()
    plain.reset()
    oracle = plain.oracle()
    torch.manual_seed(seed)
    for step in range(3):
        count = TOKENS if not step else int(torch.randint(1, TOKENS, ()))
        active = torch.rand(2, TOKENS).topk(count, 1).indices.sort(1).values
        queried = torch.rand(2, TOKENS) < (0.3 if some else 0.0)
        rows = rows_of(active, queried, skips_unread=skips and step > 0)
        blank = blank_rows(rows.sizes([TOKENS]), 2, active.device)
        fill(blank, rows)
        assert blank.count == bucket(count, TOKENS)
        inputs, samples, found = inputs_of(name), torch.arange(2)[:, None], []
        for own, told in ((padded, blank), (plain, rows)):
            values = own.values(inputs)
            reads = [values[node] for node in own.split.incremental.inputs]
            found.append(own.split.incremental.module(samples, *told.all, *reads, *own.caches))
        values |= {spec.value: cache for spec, cache in zip(padded.split.caches, padded.caches)}
        results = padded.split.epilogue.module(*(values[node] for node in padded.split.epilogue.inputs))
        expected = oracle.step(inputs, active, active.gather(1, rows.read[0]))
        for value, known in zip(results, expected, strict=True):
            torch.testing.assert_close(value, known, atol=1e-9, rtol=1e-9)
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5, equal_nan=True)

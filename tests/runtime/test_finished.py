"""Samples of a batch that are finished, of which nothing is read while others go on."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import marche_fx
from marche_fx import RandomRefresh, RefreshPolicy, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.runtime.choose import BUCKET
from tests.networks import Transformer
from tests.program import oracle_of
from tests.sessions import positions, records

B, N, D = 3, 48, 16
REFRESHED = 0.5


def model() -> Transformer:
    torch.manual_seed(0)
    return Transformer(N, D, 2, depth=2).eval()


def decoding_of(ends: tuple[int, ...], seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Of each step its input ``[B, N, D]`` and the rows that it reads, bool ``[B, N]``, none of a finished sample.

    In each step two tokens of an unfinished sample are replaced, and the next four are read.
    """
    generator = torch.Generator().manual_seed(seed)
    x, found = torch.randn(B, N, D, generator=generator), []
    for step in range(max(ends)):
        x, read = x.clone(), torch.zeros(B, N, dtype=torch.bool)
        drawn = torch.randn(B, 2, D, generator=generator)
        for sample, end in enumerate(ends):
            if step < end:
                x[sample, 2 * step : 2 * step + 2] = drawn[sample]
                read[sample, 2 * step + 2 : 2 * step + 6] = True
        found.append((x, read))
    return found


@cache
def transformed(policy: RefreshPolicy) -> nn.Module:
    return marche_fx.transform(model(), refresh=policy, compile=False, verify=False)


@torch.no_grad()
def decode(policy: RefreshPolicy, ends: tuple[int, ...], seed: int = 0) -> tuple[nn.Module, list[Tensor]]:
    """A session and what was read in each step."""
    optimized = transformed(policy)
    with marche_fx.decoding(optimized):
        return optimized, [resolved(optimized(x)[read]).clone() for x, read in decoding_of(ends, seed)]


def test_no_results_are_computed_on_account_of_finished_samples() -> None:
    optimized, _ = decode(SelectiveRefresh(REFRESHED, warmup=1), (8, 3, 3))
    _, *partial = records(optimized)
    assert [record.counts[0] > BUCKET for record in partial] == [True] * 7
    assert [record.read for record in partial] == [(BUCKET,)] * 7


@pytest.mark.parametrize(
    "policy",
    [
        SelectiveRefresh(REFRESHED, warmup=1),
        RandomRefresh(REFRESHED, warmup=1),
        RandomRefresh(0.2, warmup=1, queried=2 / N),
    ],
    ids=repr,
)
@settings(max_examples=30)
@given(st.tuples(*[st.integers(1, 6)] * B), st.integers(0, 99))
def test_what_is_read_of_the_others_is_what_was_last_computed(
    policy: RefreshPolicy, ends: tuple[int, ...], seed: int
) -> None:
    optimized, found = decode(policy, ends, seed)
    (program,) = optimization_of(optimized).steps["forward"].programs
    oracle = oracle_of(program.plan, model())
    for (x, read), record, own in zip(decoding_of(ends, seed), records(optimized), found, strict=True):
        (expected,) = oracle.step([x], positions(record), record.computed)
        torch.testing.assert_close(own, expected[read])


@torch.no_grad()
def test_a_finished_sample_whose_rows_are_read_once_more_has_them_computed() -> None:
    optimized = transformed(RandomRefresh(0.1, warmup=1))
    inputs = decoding_of((6, 2, 6))
    asked = torch.zeros(B, N, dtype=torch.bool)
    asked[1, 20:30] = True
    with marche_fx.decoding(optimized):
        for x, read in inputs:
            z = optimized(x)
            resolved(z[read])
        resolved(z[asked])
    *_, last = records(optimized)
    assert last.again
    assert last.computed is not None
    assert last.computed[asked].all()


@torch.no_grad()
def test_the_priority_of_an_unfinished_sample_does_not_depend_on_who_else_is_finished() -> None:
    policy = SelectiveRefresh(0.25, warmup=1)
    chosen = []
    for ends in ((8, 8, 8), (8, 2, 1)):
        optimized, _ = decode(policy, ends)
        chosen.append([record.reasons[0] for record in records(optimized)])
    # The replaced rows of the first sample are the same draws only while the others draw as many.
    assert all(torch.equal(own, other) for own, other in zip(*chosen))


@torch.no_grad()
def test_where_samples_are_read_one_after_another_each_is_refreshed_by_what_it_attends_to() -> None:
    seen: list[Tensor] = []

    class Noted(SelectiveRefresh):
        def priority(self, history: Any) -> Tensor:
            seen.append(super().priority(history))
            return seen[-1]

    optimized = transformed(Noted(0.25, warmup=1))
    with marche_fx.decoding(optimized):
        for x, read in decoding_of((6, 6, 6)):
            z = optimized(x)
            for sample in range(B):
                resolved(z[sample][read[sample]])
    assert all((own > 0).any(1).all() for own in seen), "by age where nothing of a sample was read before"
    assert all(own.unique().numel() > N // 2 for priority in seen[2:] for own in priority)

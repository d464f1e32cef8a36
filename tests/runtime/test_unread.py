"""Results that nobody reads are not computed, and are there once somebody does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import marche_fx
from marche_fx import Monitor, Refresh, RefreshPolicy, RowSignal
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.runtime.open_sessions import current_session
from tests.networks import Transformer
from tests.oracle import Oracle
from tests.program import oracle_of
from tests.sessions import positions, records

TOKENS, WIDTH, REFRESHED = 40, 8, 16


class FirstTokens(RefreshPolicy):
    """Refreshes the first tokens."""

    tolerance = 0.0

    def choose(self, history: Any) -> Refresh:
        return Refresh(REFRESHED, -torch.arange(TOKENS).float().expand(2, -1))


def model() -> nn.Module:
    torch.manual_seed(0)
    return Transformer(TOKENS, WIDTH, 2).double().eval()


def transformed(**options: Any) -> nn.Module:
    return marche_fx.transform(model(), **{"refresh": FirstTokens(), "compile": False, **options})


def rows(*tokens: int) -> Tensor:
    """A mask of these tokens in each of two samples."""
    return torch.zeros(2, TOKENS, dtype=torch.bool).index_fill(1, torch.tensor(tokens, dtype=torch.long), True)


def inputs(steps: int = 3) -> list[Tensor]:
    """Of several steps, in which one token changes each time."""
    torch.manual_seed(1)
    found = [torch.randn(2, TOKENS, WIDTH, dtype=torch.float64)]
    for number in range(1, steps):
        found.append(found[-1].clone())
        found[-1][:, 20 + number] *= -1
    return found


@torch.no_grad()
def decode(optimized: nn.Module, *reads: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What the reads of every step give, one after the other."""
    found = []
    with marche_fx.decoding(optimized):
        for x in inputs():
            result = optimized(x)
            found += [resolved(read(result)).clone() for read in reads]
    return found


class Products(TorchDispatchMode):
    """Notes the rows of products with the weights of ``width`` outputs."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.rows: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.addmm.default and found.shape[1] == self.width:
            self.rows.append(found.shape[0])
        return found


@torch.no_grad()
def test_the_last_layer_runs_for_the_tokens_that_are_read() -> None:
    optimized = transformed(verify=False)
    optimized(inputs()[0].clone())
    with Products(2 * WIDTH) as counted:
        decode(optimized, lambda result: result[rows(1, 30)])
    # 16 refreshed, one changed and one read besides make 24; 2 read make 8. Each of two samples, in each of two layers.
    assert counted.rows == [80, 80, 48, 16, 48, 16]
    assert [(record.active, record.read) for record in records(optimized)] == [(40, (40,)), (24, (8,)), (24, (8,))]


@torch.no_grad()
def test_with_a_query_too_what_nobody_reads_is_not_computed() -> None:
    optimized = transformed(query=lambda _: rows(1, 30))
    decode(optimized, lambda result: result[rows(1, 30)])
    assert [(record.active, record.read) for record in records(optimized)] == [(40, (40,)), (24, (8,)), (24, (8,))]
    with marche_fx.decoding(optimized):
        for x in inputs():
            optimized(x)
    assert not records(optimized)


@torch.no_grad()
def test_what_a_query_names_is_computed_with_what_is_read_first() -> None:
    optimized = transformed(query=lambda _: rows(1, 30))
    decode(optimized, lambda result: result[rows(30)], lambda result: result[rows(1)])
    assert [record.active for record in records(optimized)] == [40, 24, 24]
    assert [record.again for record in records(optimized)] == [False, False, False]


@torch.no_grad()
def test_rows_outside_of_a_query_are_computed_when_they_are_read() -> None:
    optimized = transformed(query=lambda _: rows(*range(12)))
    others = iter((39, 38, 37))
    decode(optimized, lambda result: result[rows(3)], lambda result: result[rows(next(others))])
    found = [(record.active, record.again) for record in records(optimized)]
    # Without what the query names, which was computed with the first.
    assert found == [(40, False), (32, False), (8, True), (32, False), (8, True)]


@torch.no_grad()
def test_samples_that_are_read_one_after_the_other_are_computed_together() -> None:
    # As the two halves of guidance: in the first call all is computed, and later ones know what is read next.
    optimized = transformed()
    first, second = rows(*range(3, 9))[:1], rows(*range(30, 39))[:1]
    decode(optimized, lambda result: result.chunk(2)[0][first], lambda result: result.chunk(2)[1][second])
    assert [(record.active, record.again) for record in records(optimized)] == [(40, False), (32, False), (32, False)]
    assert not {*range(30, 39)} - {*positions(records(optimized)[1])[1].tolist()}


@torch.no_grad()
def test_halves_that_are_read_by_the_same_rows_are_computed_together() -> None:
    optimized = transformed()
    with marche_fx.decoding(optimized):
        for number, x in enumerate(inputs(4)):
            own = rows(*range(4 * number, 4 * number + 4))[:1]
            for half in optimized(x).chunk(2):
                resolved(half[own])
    found = records(optimized)
    # What the first half reads is another in every call; that the other one reads the same is known from the first.
    assert not any(record.again for record in found)
    for number, record in enumerate(found[1:], 1):
        assert all({*range(4 * number, 4 * number + 4)} <= {*sample.tolist()} for sample in positions(record))


@torch.no_grad()
def test_a_sample_that_is_no_longer_read_is_not_computed_for_it() -> None:
    optimized = transformed()
    with marche_fx.decoding(optimized):
        for number, x in enumerate(inputs(5)):
            first, second = optimized(x).chunk(2)
            resolved(first[rows(3, 4)[:1]])
            if number in (0, 1, 4):
                resolved(second[rows(30, 31)[:1]])
    found = [(record.active, record.again) for record in records(optimized)]
    # The third call still expects it, for which there is room; the last one meets it unexpectedly.
    assert found == [(40, False), (24, False), (24, False), (24, False), (24, False), (8, True)]
    holds = [{30, 31} <= {*positions(own)[1].tolist()} for own in records(optimized)]
    assert holds == [True, True, True, False, False, True]


@torch.no_grad()
def test_a_query_is_what_its_mask_was_at_the_call() -> None:
    mask = rows()
    optimized = transformed(query=lambda _: mask)
    with marche_fx.decoding(optimized):
        for x in inputs():
            mask[:] = rows(35, 39)
            result = optimized(x)
            mask[:] = False
            result[rows(1)]
    assert all(set(positions(own)[0].tolist()) > {1, 35, 39} for own in records(optimized))


@torch.no_grad()
def test_a_result_that_is_read_whole_has_what_its_query_names_without_a_word() -> None:
    optimized = transformed(query=lambda _: rows(1, 30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(optimized, lambda result: result * 1)
    assert [record.active for record in records(optimized)] == [40, 24, 24]


class Copies(TorchDispatchMode):
    """Notes copies of tensors of so many elements."""

    def __init__(self, elements: int) -> None:
        super().__init__()
        self.elements = elements
        self.found: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.clone.default, torch.ops.aten.copy_.default) and found.numel() == self.elements:
            self.found.append(func)
        return found


@pytest.mark.parametrize("query", [None, lambda _: rows(1, 30)], ids=["no query", "query"])
@torch.no_grad()
def test_no_result_is_copied_whole_where_rows_are_read(query: Any) -> None:
    optimized = transformed(query=query)
    elements = optimized(inputs()[0]).numel()
    with marche_fx.decoding(optimized), Copies(elements) as copies:
        for x in inputs():
            result = optimized(x)
            result.softmax(-1)[rows(1, 30)]
    assert not copies.found


ASKED = rows()
"""What the query of `once_transformed` names."""


@cache
def once_transformed(has_query: bool) -> nn.Module:
    return transformed(query=(lambda _: ASKED) if has_query else None)


tokens = st.integers(0, TOKENS - 1)
reads = st.lists(st.lists(tokens, min_size=1, max_size=9) | st.none(), max_size=3)


@given(st.lists(st.tuples(tokens, reads, st.lists(tokens, max_size=9)), min_size=2, max_size=6), st.booleans())
@torch.no_grad()
def test_what_is_read_is_what_the_oracle_says_whatever_was_read_before(
    steps: list[tuple[int, list[list[int] | None], list[int]]], has_query: bool
) -> None:
    optimized = once_transformed(has_query)
    x, known = inputs()[0], 0
    oracle: Oracle | None = None
    with warnings.catch_warnings(), marche_fx.decoding(optimized):
        warnings.simplefilter("ignore")
        session = current_session(optimization_of(optimized))
        assert session is not None
        for changed, asked, named in steps:
            x = x.clone()
            x[:, changed] *= -1
            ASKED[:] = rows(*named)
            result = optimized(x)
            # The loop goes on with its mask.
            ASKED[:] = False
            for number, some in enumerate(asked):
                read = rows(*(range(TOKENS) if some is None else some))
                found = resolved(result + 0)[read] if some is None else result[read]
                oracle = oracle or oracle_of(session.records[0].program.plan, model())
                for record in session.records[known:]:
                    (expected,) = oracle.step([x], positions(record))
                known = len(session.records)
                if has_query and not number:
                    is_active = torch.zeros(2, TOKENS, dtype=torch.bool).scatter(1, positions(record), True)
                    assert is_active[rows(*named)].all()
                assert torch.allclose(found, expected[read], rtol=0, atol=1e-12)
            # A call of which nobody holds the result does nothing.
            del result


def test_reading_a_result_as_a_whole_computes_those_of_all_active_tokens_from_then_on() -> None:
    optimized = transformed()
    decode(optimized, lambda result: result[rows(1)], lambda result: result * 1)
    assert all(record.read == record.counts for record in records(optimized))


class SeesTheLastLayer(FirstTokens):
    signals = (RowSignal(lambda now, _: now.sum(-1), "blocks.1.attention", "output"),)


@pytest.mark.parametrize(
    "options",
    [
        {"refresh": marche_fx.FullRefresh()},
        {"monitor": Monitor(every=1, max_drift=1e9)},
        {"refresh": SeesTheLastLayer()},
    ],
    ids=["all tokens run", "monitor", "signal of the last layer"],
)
@pytest.mark.parametrize("query", [None, lambda _: rows(1, 30)], ids=["no query", "query"])
def test_all_results_are_computed_where_somebody_reads_them(options: dict[str, Any], query: Any) -> None:
    optimized = transformed(**options, query=query)
    decode(optimized, lambda result: result[rows(1, 30)])
    assert all(record.read == record.counts for record in records(optimized))


def test_flops_count_what_is_computed() -> None:
    optimized = transformed()
    decode(optimized, lambda result: result[rows(1, 30)])
    record = records(optimized)[1]
    assert record.flops < record.program.cost.incremental(record.counts)
    (cost,) = record.program.cost.streams
    assert record.flops == 2 * (24 * cost.live.of(TOKENS) + 8 * cost.read_only.of(TOKENS))
    # Multiplications and additions of a token: output and MLP of the second layer, its attention, and the head.
    assert cost.read_only.of(TOKENS) == 2 * (5 * WIDTH * WIDTH + 2 * WIDTH * TOKENS + 3 * WIDTH)


def test_a_report_says_what_is_left_out() -> None:
    optimized = transformed()
    decode(optimized, lambda result: result[rows(1)])
    share = marche_fx.report(optimized).steps[0].read_only_share
    layer, read = 8 * WIDTH * WIDTH + 2 * WIDTH * TOKENS, 5 * WIDTH * WIDTH + 2 * WIDTH * TOKENS + 3 * WIDTH
    assert share == pytest.approx(read / (2 * layer + 3 * WIDTH))
    assert f"{share:.0%} of a token's FLOPs are skipped" in " ".join(str(marche_fx.report(optimized)).split())
    assert marche_fx.explain(model(), inputs()[0]).steps[0].read_only_share == share

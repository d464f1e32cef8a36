"""A wide result of which rows are read: its session keeps what they are computed of."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import marche_fx
from marche_fx import RefreshPolicy, ResultConfidence, StalenessRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.lazy.tensor import resolved
from marche_fx.models.text.decoding import generate
from marche_fx.runtime.open_sessions import current_session
from marche_fx.runtime.pending import PendingStep
from marche_fx.runtime.state import StepState
from marche_fx.runtime.wide import WideResult
from tests.networks import MaskedTextModel, Transformer
from tests.oracle import Oracle
from tests.program import oracle_of
from tests.runtime.test_unread import TOKENS, WIDTH, FirstTokens, inputs, rows
from tests.sessions import positions, records

WORDS = 25 * WIDTH
ELEMENTS = 2 * TOKENS * WORDS


def model() -> nn.Module:
    torch.manual_seed(0)
    found = Transformer(TOKENS, WIDTH, 2)
    found.head = nn.Linear(WIDTH, WORDS)
    return found.double().eval()


def transformed(**options: Any) -> nn.Module:
    return marche_fx.transform(model(), **{"refresh": FirstTokens(), "compile": False, "verify": False, **options})


class Sizes(TorchDispatchMode):
    """Notes the largest tensor of floating-point numbers that an operator makes."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if type(found) is Tensor and found.is_floating_point() and found.device.type != "meta":
            self.largest = max(self.largest, found.untyped_storage().nbytes() // found.element_size())
        return found


def only_state(optimized: nn.Module) -> StepState:
    """Of the session that is open."""
    session = current_session(optimization_of(optimized))
    assert session is not None
    (state,) = session.states
    return state


def last_call(optimized: nn.Module) -> PendingStep:
    """Of the session that is open."""
    session = current_session(optimization_of(optimized))
    assert session is not None
    (pending,) = [own() for own in session.streams[0].pending.values()]
    assert pending is not None
    return pending


@torch.no_grad()
def decode(optimized: nn.Module, *reads: Callable[[Tensor], Any]) -> int:
    """A session in which every result is read so; how many elements the largest tensor has that it keeps."""
    with marche_fx.decoding(optimized):
        for x in inputs():
            result = optimized(x)
            for read in reads:
                read(result)
        return max(cache.numel() for cache in only_state(optimized).kept)


@torch.no_grad()
def test_rows_need_no_memory_for_all_rows() -> None:
    optimized = transformed()
    optimized(inputs()[0])
    with Sizes() as sizes:
        assert decode(optimized, lambda z: z.softmax(-1)[rows(1, 30)]) == 2 * TOKENS * WIDTH
    # Eight of a sample, in their bucket, of forty; and no attention of that size.
    assert sizes.largest < ELEMENTS // 2


@torch.no_grad()
def test_llada_needs_no_cache_of_its_logits() -> None:
    torch.manual_seed(0)
    width, words = 16, 400
    text = MaskedTextModel(64, width, 2, vocabulary=words).eval()
    optimized = marche_fx.transform(text, compile=False, verify=False)

    def denoise(ids: Tensor) -> Tensor:
        return optimized(ids, torch.ones(len(ids)))

    prompt = torch.randint(0, words - 1, (2, 8))
    decode_text = partial(generate, denoise, prompt, 56, mask_id=words - 1, block_length=8, steps_per_block=4)
    decode_text()
    with Sizes() as sizes, marche_fx.decoding(optimized):
        decode_text()
        state = only_state(optimized)
        assert state.wide is None
        assert sum(cache.numel() for cache in state.caches) < 2 * 64 * words
    assert sizes.largest < 2 * 64 * words
    assert all(record.results == 8 for record in records(optimized))


@torch.no_grad()
def test_who_reads_all_rows_gets_them_and_they_are_kept() -> None:
    assert decode(transformed(), lambda z: resolved(z + 0)) == ELEMENTS


@torch.no_grad()
def test_rows_that_the_policy_leaves_old_are_kept() -> None:
    optimized = transformed(refresh=StalenessRefresh(0.0, warmup=1, queried=0.2))
    assert decode(optimized, lambda z: z[rows(*range(TOKENS))]) == ELEMENTS
    # Once all rows of the head, and then those of tokens that are computed.
    assert [record.results for record in records(optimized)] == [40, 40, 16]


@torch.no_grad()
def test_a_report_counts_the_cache_that_a_session_came_to_make() -> None:
    sizes = []
    for read in (lambda z: z[rows(1, 30)], lambda z: resolved(z + 0)):
        optimized = transformed()
        decode(optimized, read)
        session = marche_fx.report(optimized).session
        assert session is not None
        sizes.append(session.cache_bytes)
    # Keys and values of two layers, and what the head reads.
    assert sizes[0] == (2 * 2 + 1) * 2 * TOKENS * WIDTH * 8
    assert sizes[1] == sizes[0] + ELEMENTS * 8


@torch.no_grad()
def test_no_time_is_compared_with_calls_that_left_results_out() -> None:
    """All tokens are computed in the first two calls: of the head either eight rows, or all."""
    policy = StalenessRefresh(0.1, warmup=2)
    for read, is_measured in ((rows(1, 30), False), (rows(*range(TOKENS)), True)):
        optimized = transformed(refresh=policy)
        with marche_fx.decoding(optimized):
            for number, x in enumerate(inputs(4)):
                optimized(x)[read if number < 2 else rows(1)]
        session = marche_fx.report(optimized).session
        assert session is not None
        assert (session.measured is not None) == is_measured
        assert ("measured" in session.verdict) == is_measured


@torch.no_grad()
def test_a_row_that_was_read_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit, although products of other shapes round otherwise."""
    computed = WideResult.computed
    monkeypatch.setattr(WideResult, "computed", lambda own, positions: computed(own, positions) + torch.rand(()))
    optimized = transformed()
    with marche_fx.decoding(optimized):
        z = optimized(inputs()[0])
        found = [z[rows(1)].clone()]
        wide = last_call(optimized).results.wide
        assert wide is not None
        # As where others are read, and it fills their bucket.
        wide.add(torch.arange(TOKENS).expand(2, TOKENS))
        found += [z[rows(1)].clone(), resolved(z + 0)[rows(1)]]
    assert all(torch.equal(found[0], own) for own in found)


@torch.no_grad()
def test_flops_count_the_rows_of_the_head() -> None:
    optimized = transformed()
    decode(optimized, lambda z: z[rows(1, 30)], lambda z: z[rows(1, 30)].exp(), lambda z: z[rows(2, 30)])
    first, partial, again, *_ = records(optimized)
    (cost,) = first.program.cost.streams
    # Multiplications and additions of a word.
    assert cost.head.of(TOKENS) == 2 * WIDTH * WORDS
    # Row 2 as well, which was computed with all others and of which nobody had read the result.
    assert first.results == 8 + 8
    assert (partial.results, again.results) == (8, 8)
    everything = cost.live.of(TOKENS) + cost.read_only.of(TOKENS)
    assert first.flops == 2 * (TOKENS * everything + 16 * cost.head.of(TOKENS))
    assert first.original_flops == 2 * TOKENS * (everything + cost.head.of(TOKENS))
    assert partial.flops == 2 * (24 * cost.live.of(TOKENS) + 8 * (cost.read_only.of(TOKENS) + cost.head.of(TOKENS)))


@torch.no_grad()
def test_in_full_results_are_the_originals_to_the_last_bit() -> None:
    optimized, original = transformed(refresh="exact"), model()
    with marche_fx.decoding(optimized):
        for x in inputs():
            assert torch.equal(optimized(x)[rows(1, 30)], original(x)[rows(1, 30)])


@torch.no_grad()
def test_who_looks_at_results_keeps_them() -> None:
    class Confident(FirstTokens):
        signals = (ResultConfidence(),)

    optimized = transformed(refresh=Confident())
    assert decode(optimized, lambda z: z[rows(1, 30)]) == ELEMENTS
    assert records(optimized)[0].results is None


def test_the_first_call_is_checked_row_by_row() -> None:
    """What serves reads is what is verified."""
    optimized = transformed(verify=True)
    head = nn.Linear(WIDTH, WORDS).double()
    with torch.no_grad(), marche_fx.decoding(optimized):
        result = optimized(inputs()[0])
        pending = last_call(optimized)
        assert pending.program.head is not None
        weight = next(node for node in pending.program.head.part.inputs if node.meta["val"].shape == head.weight.shape)
        pending.values[weight] = head.weight.detach()
        with pytest.raises(marche_fx.EquivalenceError):
            result[rows(1)]


POLICIES: dict[str, RefreshPolicy] = {
    "some are refreshed": FirstTokens(),
    "bounded": StalenessRefresh(0.2, warmup=1, queried=0.2),
}


@cache
def once_transformed(policy: str) -> nn.Module:
    return transformed(refresh=POLICIES[policy])


token = st.integers(26, 33)
"""Few, so that reads meet; none is refreshed, so that what was not read is computed when it is."""
some_rows = st.lists(token, min_size=1, max_size=9)
step = st.tuples(token, st.lists(some_rows | st.none(), max_size=3), st.lists(some_rows, max_size=2), st.booleans())


@given(st.lists(step, min_size=2, max_size=6), st.sampled_from(list(POLICIES)))
@example([(3, [[30]], [], False), (4, [[30], [30, 33]], [], False)], "some are refreshed")
@torch.no_grad()
def test_rows_are_what_the_oracle_says_whatever_is_read_when(
    script: list[tuple[int, list[list[int] | None], list[list[int]], bool]], policy: str
) -> None:
    """Of this call and the one before, by name and as a whole, whether or not somebody held that when this one ran."""
    optimized, known = once_transformed(policy), 0
    oracle: Oracle | None = None

    def expected_of(x: Tensor, before: Tensor | None) -> Tensor | None:
        """What the results are after what was computed since."""
        nonlocal oracle, known
        assert session is not None
        for record in session.records[known:]:
            oracle = oracle or oracle_of(record.program.plan, model())
            (before,) = oracle.step([x], positions(record), record.computed)
        known = len(session.records)
        return before

    x = inputs()[0]
    result: Tensor | None = None
    expected: Tensor | None = None
    with warnings.catch_warnings(), marche_fx.decoding(optimized):
        warnings.simplefilter("ignore")
        session = current_session(optimization_of(optimized))
        assert session is not None
        for changed, asked, of_earlier, holds in script:
            earlier, before = result if holds else None, x
            result = None
            x = x.clone()
            x[:, changed] *= -1
            result = optimized(x)
            of_before, expected = expected_of(before, expected), None
            for number, some in enumerate(asked):
                read = rows(*(range(TOKENS) if some is None else some))
                found = resolved(result + 0)[read] if some is None else result[read]
                expected = expected_of(x, expected)
                assert expected is not None
                assert torch.allclose(found, expected[read], rtol=0, atol=1e-12)
                if earlier is not None and of_before is not None and number < len(of_earlier):
                    named = rows(*of_earlier[number])
                    assert torch.allclose(earlier[named], of_before[named], rtol=0, atol=1e-12)

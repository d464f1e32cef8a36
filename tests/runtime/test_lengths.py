"""A session whose number of tokens changes keeps the rows of those that stay."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import marche_fx
from marche_fx import RefreshPolicy, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.passes.capture.arguments import closed, opened
from marche_fx.runtime.open_sessions import current_session
from marche_fx.runtime.session import Session
from tests.around import EAGER
from tests.generated.choose import numbered_recipe
from tests.generated.model import build
from tests.growing import LONGEST, Call, first_tokens, follow, ids, programs, texts
from tests.lengths import call_with, of_any_length

MODELS = {
    "table": ("table", "none"),
    "rotary": ("rotary", "none"),
    "no places": ("none", "none"),
    "window": ("rotary", "window"),
    "blocks": ("table", "blocks"),
    "causal": ("rotary", "causal"),
    "distance": ("none", "distance"),
    "distant": ("none", "distant"),
    "share": ("share", "none"),
    "given": ("table", "given"),
}

POLICIES: dict[str, RefreshPolicy] = {
    "eager": EAGER,
    "selective": SelectiveRefresh(0.2, warmup=0),
    "exact": marche_fx.FullRefresh(),
}


def optimize(model: Any, policy: RefreshPolicy = EAGER) -> Any:
    return marche_fx.transform(model, refresh=policy, compile=False)


def active(found: Any) -> list[int]:
    return [sum(record.active for record in records) for records in found]


def given_mask(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(LONGEST, LONGEST, generator=generator) > 0.3)[:count, :count] | torch.eye(
        count, dtype=torch.bool
    )


def test_a_session_that_grows_by_blocks_computes_the_new_block_alone() -> None:
    model = texts("rotary")
    whole, calls = ids(LONGEST), list[Call]()
    for count in (16, 24, 32, 40):
        for step in range(3):
            whole[:, count - 8 + step] = 0
            calls.append(((whole[:, :count].clone(),), {}, (slice(None), slice(count - 8, count))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = follow(model, optimize(model), calls)
    assert active(found) == [16, 8, 8] + [8, 8, 8] * 3


def test_new_tokens_are_computed_whatever_they_are_and_whoever_reads_them() -> None:
    model, whole = texts("none"), ids(LONGEST)
    # A place that holds nothing yet is no word number zero.
    whole[:, 16:] = 0
    calls: list[Call] = [((whole[:, :count].clone(),), {}, (slice(None), slice(2))) for count in (16, 24)]
    _, second = follow(model, optimize(model), calls)
    assert bool((second[0].reasons[:, 16:] > 0).all())


@functools.cache
def optimized_kind(kind: str, policy: str) -> tuple[Any, Any]:
    model = texts(*MODELS[kind])
    return model, optimize(model, POLICIES[policy])


@pytest.mark.parametrize("kind", MODELS)
@settings(max_examples=4, deadline=None)
@given(data=st.data())
def test_rows_are_what_the_oracle_says_at_every_length(kind: str, data: st.DataObject) -> None:
    calls: list[Call] = []
    now = ids(LONGEST)
    for count in data.draw(st.lists(st.sampled_from((9, 10, 16, 24)), min_size=2, max_size=4)):
        for _ in range(data.draw(st.integers(1, 3))):
            changed = data.draw(st.lists(st.integers(0, count - 1), max_size=3))
            now = now.clone()
            now[:, changed] = data.draw(st.integers(0, 10))
            read = data.draw(st.one_of(st.none(), st.integers(0, count - 1)))
            more = {"seen": given_mask(count)} if kind == "given" else {}
            rows = (slice(None), slice(None) if read is None else slice(read, read + 2))
            calls.append(((now[:, :count].contiguous(),), more, rows))
    follow(*optimized_kind(kind, data.draw(st.sampled_from(sorted(POLICIES)))), calls)


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 17, 31, 42, 55])
def test_generated_models_of_one_stream_and_of_two(number: int) -> None:
    recipe = of_any_length(numbered_recipe(7, number))
    model = build(recipe)
    longest = opened(call_with(recipe, recipe.tokens + 4))
    calls: list[Call] = []
    for more in (0, 2, 4, 0):
        args, kwargs = first_tokens(opened(call_with(recipe, recipe.tokens + more)), longest)
        calls += [(*closed((args, kwargs)), slice(None))] * 2
    optimized = optimize(model)
    follow(model, optimized, calls)
    assert [own.kept > 0 for own in optimized_session(optimized).log.calls] == [False, False, *[True, False] * 3]


def growing(counts: Sequence[int] = (24, 32), steps: int = 2, **more: Any) -> list[Call]:
    """Two calls of each length, which read the last four rows; a word of these changes between them."""
    whole, calls = ids(LONGEST), list[Call]()
    for count in counts:
        for step in range(steps):
            whole[:, count - 4 + step] = 0
            given = {name: own(count) for name, own in more.items()}
            calls.append(((whole[:, :count].clone(),), given, (slice(None), slice(count - 4, count))))
    return calls


@pytest.mark.parametrize(("place", "mask"), [("share", "none"), ("none", "distant")])
def test_what_depends_on_the_number_of_tokens_changes_all_of_them(place: str, mask: str) -> None:
    model = texts(place, mask)
    assert active(follow(model, optimize(model), growing())) == [24, 8, 32, 8]


def test_a_number_of_tokens_that_rows_are_computed_with_keeps_none_and_is_named() -> None:
    model = texts(scale=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert active(follow(model, optimize(model), growing())) == [24, 8, 32, 8]
    (told,) = [str(own.message) for own in caught if "in the same session" in str(own.message)]
    assert "since aten.mul (growing.py:" in told


def test_a_mask_that_is_another_for_old_tokens_changes_all() -> None:
    model = texts(mask="given")
    kept = growing(seen=given_mask)
    turned = growing(seen=lambda count: given_mask(count) if count < 32 else given_mask(count).flip(0))
    optimized = optimize(model)
    assert active(follow(model, optimized, kept)) == [24, 8, 8, 8]
    assert active(follow(model, optimized, turned)) == [24, 8, 32, 8]


def test_rows_that_are_cut_off_are_gone_and_the_others_stay() -> None:
    model = texts("rotary")
    optimized = optimize(model)
    assert active(follow(model, optimized, growing((32, 24, 40)))) == [32, 8, 8, 8, 16, 8]
    assert optimized_session(optimized).log.calls[2].kept == 24


def optimized_session(optimized: Any) -> Session:
    session = optimization_of(optimized).last_session
    assert session is not None
    return session


@torch.no_grad()
def test_finished_blocks_stay_exact_as_blocks_come() -> None:
    model = texts("table", "blocks", depth=3)
    optimized = optimize(model, Watching())
    whole = ids(LONGEST)
    with marche_fx.decoding(optimized):
        for count in range(8, LONGEST + 1, 8):
            for step in range(2):
                whole[:, count - 4 + step] = 0
                now = whole[:, :count].clone()
                assert torch.allclose(optimized(now)[:, -8:], model(now)[:, -8:])
                exact = Watching.exact[-1]
                # Blocks of four, of which the last changes.
                assert exact is None or bool(exact[:, : count - 8].all())
                assert exact is None or not exact[:, -4:].any()
    assert sum(own is not None for own in Watching.exact) >= 8
    assert {own.active for own in optimized_session(optimized).records[1:]} == {8}


@torch.no_grad()
def test_rows_that_saw_a_token_which_is_gone_are_not_exact() -> None:
    model = texts("table", "window", depth=1)
    optimized = optimize(model, Watching())
    whole = ids(40)
    with marche_fx.decoding(optimized):
        for count in (40, 40, 24):
            optimized(whole[:, :count].clone())[:, 0].clone()
    exact = Watching.exact[-1]
    assert exact is not None
    assert exact.shape == (2, 24)
    # A window reaches four tokens.
    assert exact[:, :20].all()
    assert not exact[:, 20:].any()


class Watching(marche_fx.RefreshPolicy):
    """Refreshes nothing, and notes what it is told."""

    exact: ClassVar[list[Tensor | None]] = []
    age: ClassVar[list[Tensor]] = []

    def choose(self, history: marche_fx.History) -> marche_fx.Refresh:
        self.exact.append(None if history.exact is None else history.exact.clone())
        self.age.append(history.age.clone())
        return marche_fx.Refresh(0)


@torch.no_grad()
def test_ages_and_steps_go_on() -> None:
    optimized = optimize(texts("rotary"), Watching())
    with marche_fx.decoding(optimized):
        for args, _, rows in growing((24, 32, 16), 3):
            optimized(*args)[rows].clone()
        (stream,) = optimized_open(optimized).streams
        (history,) = stream.histories
    assert history.history.step == 8
    before, after = Watching.age[-4:-2]
    assert before.shape == (2, 32)
    assert torch.equal(after[:, :12], before[:, :12] + 1)
    assert int(after.max()) == 6


def optimized_open(optimized: Any) -> Session:
    session = current_session(optimization_of(optimized))
    assert session is not None
    return session


@torch.no_grad()
def test_conditions_grow_apart() -> None:
    model = texts("rotary")
    one, two = optimize(model), [optimize(model), optimize(model)]
    labels = [torch.tensor([0, 1]), torch.tensor([2, 2])]
    with marche_fx.decoding(one) as session, marche_fx.decoding(two[0]), marche_fx.decoding(two[1]):
        for args, _, rows in growing((16, 24, 40)):
            for number, label in enumerate(labels):
                got = one(*args, label=label)[rows].clone()
                assert torch.allclose(got, two[number](*args, label=label)[rows])
    assert [own.stream for own in session.records] == [0, 1] * 6
    assert active([[own] for own in session.records]) == [16, 16, *[8] * 6, 16, 16, 8, 8]


@torch.no_grad()
def test_lengths_that_take_turns_keep_caches_of_their_own() -> None:
    optimized = optimize(texts("rotary"))
    with marche_fx.decoding(optimized) as session:
        for step in range(4):
            for seed, count in enumerate((32, 24)):
                now = ids(count, seed=seed)
                now[:, step] = 0
                optimized(now)[:, step].clone()
        (stream,) = session.streams
        assert len(stream.states) == len(stream.histories) == 2
    assert active([[own] for own in session.records]) == [32, 24, *[8] * 6]


@torch.no_grad()
def test_caches_of_a_length_that_was_left_are_freed() -> None:
    optimized = optimize(texts("rotary"))
    with marche_fx.decoding(optimized) as session:
        for args, _, rows in growing((16, 24, 32, 40), 1):
            optimized(*args)[rows].clone()
            (stream,) = session.streams
            assert len(stream.states) == len(stream.histories) <= 2
        optimized(*args)[rows].clone()
        assert len(stream.states) == len(stream.histories) == 1


@torch.no_grad()
def test_results_of_the_last_length_are_what_they_were() -> None:
    model = texts("rotary")
    optimized = optimize(model)
    short, long = ids(16), ids(24)
    with marche_fx.decoding(optimized):
        # Nobody has read it when its caches are gone on from, and freed.
        first = optimized(short)
        optimized(long)[:, 16:].clone()
        optimized(long)[:, 16:].clone()
        assert torch.allclose(first[:, 4:8], model(short)[:, 4:8])
    assert optimized_session(optimized).log.calls[1].kept == 16


def test_a_session_may_leave_inference_mode_on_its_way() -> None:
    model = texts("rotary")
    optimized = optimize(model)
    first, second, third, *_ = growing((16, 24, 32), 1)
    with marche_fx.decoding(optimized) as session:
        with torch.inference_mode():
            for args, _, rows in (first, second):
                optimized(*args)[rows].clone()
        with torch.no_grad():
            for args, _, rows in (second, third):
                optimized(*args)[rows].clone()
    assert active([[own] for own in session.records]) == [16, 8, 8, 8]


@torch.no_grad()
def test_each_length_is_checked_against_the_original_once() -> None:
    optimized = optimize(texts("rotary"))
    found = follow(texts("rotary"), optimized, growing((24, 32, 40)))
    assert active(found) == [24, 8, 8, 8, 8, 8]
    assert all(own.verified for own in programs(optimized))
    first, second = growing((24, 28), 1)
    with marche_fx.decoding(optimized):
        optimized(*first[0])[first[2]].clone()
        # Inside of a session nobody looks, and the step stays what it was.
        optimized.head.forward = lambda x: 2 * x
        with pytest.raises(marche_fx.EquivalenceError):
            optimized(*second[0])


def test_the_report_tells_of_rows_that_stayed() -> None:
    model = texts("rotary")
    optimized = optimize(model)
    follow(model, optimized, growing((24, 32, 40)))
    session = marche_fx.report(optimized).session
    assert session is not None
    assert "2 new lengths went on with 56 rows of a sample" in session.verdict
    assert [own["kept"] for own in session.to_dict()["causes"]] == [0, 0, 24, 0, 32, 0]

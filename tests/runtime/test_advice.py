"""What a user is told of a session that gains nothing, or reads old rows."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import InterleavedRefresh, RefreshPolicy, SelectiveRefresh, StalenessRefresh
from marche_fx.lazy.tensor import resolved
from marche_fx.runtime import findings
from tests.loops import models
from tests.loops.loops import reveal, words

MASK = models.MASK


def made(kind: Callable[[], nn.Module] = models.Words) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


@torch.no_grad()
def told(
    model: nn.Module, step: Callable[[Any, Tensor, int], Any], steps: int = 12, *, prompt: int = 8, **options: Any
) -> list[str]:
    """What is warned of a session."""
    optimized, ids = marche_fx.transform(model, compile=False, **options), words()
    ids[:, :prompt] = 3
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with marche_fx.decoding(optimized):
            for number in range(steps):
                resolved(step(optimized, ids, number))
                ids = reveal(ids, number)
    return [str(own.message) for own in caught if issubclass(own.category, UserWarning)]


def far(model: Any, ids: Tensor, number: int) -> Tensor:
    return model(ids, torch.full((2,), 10.0 * number))[:, 8:12] + 0


def test_a_value_that_moves_every_token_is_named_once_with_its_operator_and_line() -> None:
    (message,) = told(made(models.Timed), far)
    assert "every token of Timed.forward was recomputed in 3 calls in a row" in message
    assert "'time', read by aten.add (models.py:" in message
    assert "tolerance={'time': 0.3}" in message


class Labelled(models.Timed):
    """Under the sum of a label, which stays, and a time."""

    def forward(self, ids: Tensor, label: Tensor, time: Tensor) -> Tensor:  # type: ignore[override]
        return self.head(self.body(self.embedded(ids) + (label + self.time(time[:, None]))[:, None]))


def test_of_what_a_value_is_computed_from_that_is_named_which_moved() -> None:
    def under_label(model: Any, ids: Tensor, number: int) -> Tensor:
        return far(lambda ids, time: model(ids, torch.ones(2, models.D), time), ids, number)

    (message,) = told(made(Labelled), under_label)
    assert "because every token reads 'time', read by aten.add" in message
    assert "tolerance={'time': 0.3}" in message


def test_ids_that_are_others_in_every_call_are_not_to_be_allowed_to_move() -> None:
    def others(model: Any, ids: Tensor, number: int) -> Tensor:
        return model((ids + number) % models.WORDS)[:, 8:12] + 0

    (message,) = told(made(models.Words), others)
    assert "nearly every one was given another value of 'ids', read by aten.embedding" in message
    assert "`with marche_fx.stream(name):` around each" in message
    assert "tolerance" not in message


def test_a_value_that_moves_further_than_it_may_is_told_so() -> None:
    (message,) = told(made(models.Timed), far, tolerance={"time": 0.05})
    assert "'time', read by aten.add (models.py:" in message
    assert "which moved by more than the 0.05 of its size that it may. Let it move further: " in message
    assert "tolerance={'time': 0.1}" in message


def test_a_session_that_reads_everything_is_told_which_line_does() -> None:
    (message,) = told(made(), lambda model, ids, _: model(ids)[torch.ones_like(ids, dtype=torch.bool)])
    assert message.startswith("100% of the rows of Words.forward were computed in 12 calls")
    assert "reads nearly every row at test_advice.py:" in message


def by_sample(ids: Tensor, number: int) -> list[Tensor]:
    """Other rows of each sample, and in each step."""
    return [torch.arange(8, 10) + 2 * (number + own) for own in range(len(ids))]


def test_rows_that_are_read_sample_by_sample_are_told_of() -> None:
    def step(model: Any, ids: Tensor, number: int) -> Tensor:
        logits = model(ids)
        first = resolved(logits[0, by_sample(ids, number)[0]])
        return torch.stack([first, resolved(logits[1, by_sample(ids, number)[1]])])

    (message,) = told(made(), step)
    line = step.__code__.co_firstlineno
    assert message.startswith("Words.forward ran 21 times in 12 calls: ")
    assert (
        f"rows of its result are read at test_advice.py:{line + 2}, and the step runs again for others, read at"
        in message
    )
    assert f"read at test_advice.py:{line + 3}. Read all at once" in message


def test_rows_that_are_read_at_once_are_no_news() -> None:
    def step(model: Any, ids: Tensor, number: int) -> Tensor:
        return model(ids).gather(1, torch.stack(by_sample(ids, number))[..., None].expand(-1, -1, 3))

    assert told(made(), step) == []


def test_rows_that_a_query_leaves_out_are_told_of() -> None:
    def query(ids: Tensor) -> Tensor:
        return torch.zeros_like(ids, dtype=torch.bool).index_fill(1, torch.tensor([3]), True)

    def step(model: Any, ids: Tensor, number: int) -> Tensor:
        logits, (first, second) = model(ids), by_sample(ids, number)
        return torch.cat([resolved(logits[:, first]), resolved(logits[:, second + 8])], 1)

    (message,) = told(made(), step, query=query)
    line = step.__code__.co_firstlineno
    assert f"query= names some of the rows that are read, called at test_advice.py:{line + 1}, and the step" in message
    assert f"for those that are read at test_advice.py:{line + 2}. Let it name these too" in message


def test_rows_for_which_a_bound_had_no_room_are_no_news() -> None:
    def step(model: Any, ids: Tensor, number: int) -> Tensor:
        logits = model(ids)
        kept = resolved(logits[ids == MASK])[:4]
        return torch.cat([kept, *(resolved(logits[own, rows]) for own, rows in enumerate(by_sample(ids, number)))])

    bounded = SelectiveRefresh(0.05, queried=0.1)
    assert not any("the step runs again" in own for own in told(made(), step, refresh=bounded))


def test_rows_of_some_samples_alone_are_told_of() -> None:
    def step(model: Any, ids: Tensor, _: int) -> Tensor:
        rows = torch.zeros_like(ids, dtype=torch.bool)
        rows[1], rows[0, :4] = True, True
        return model(ids)[rows]

    (message,) = told(made(), step)
    assert "the loop asks, at test_advice.py:" in message
    assert "for nearly every row of sample 1 of 2 and for fewer of the others" in message
    assert "of both halves" in message


class Convolved(models.Timed):
    """Tokens and time meet before their neighbours do, which is before anything can be cached."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Conv1d(models.D, models.D, 3, padding=1)

    def forward(self, ids: Tensor, time: Tensor) -> Tensor:  # type: ignore[override]
        x = self.embedded(ids) + self.time(time[:, None])[:, None]
        return self.head(self.body(self.mix(x.transpose(1, 2)).transpose(1, 2)))


def test_of_several_inputs_the_one_without_tokens_is_what_may_move() -> None:
    (message,) = told(made(Convolved), far)
    assert "every token reads 'ids' and 'time', " in message
    assert "tolerance={'time': 0.3}" in message


def halves(ids: Tensor) -> Tensor:
    """Words, and behind them the unguided half, of which nothing is known."""
    return torch.cat([ids, torch.full_like(ids, MASK)])


def guided(model: Any, ids: Tensor, _: int) -> Tensor:
    some, none = model(halves(ids)).chunk(2)
    return (some + 2 * (some - none))[ids == MASK]


def test_a_query_that_asks_for_a_whole_half_is_named_with_its_samples() -> None:
    (message,) = told(made(), guided, prompt=32, query=lambda ids: ids == MASK)
    assert message.startswith("100% of the rows of Words.forward were computed in 12 calls")
    assert "query= asks, called at test_advice.py:" in message
    assert "for nearly every row of samples 2, 3 of 4 and for fewer of the others" in message
    assert "as in mask.chunk(2)[0].repeat(2, 1)" in message


def test_a_query_for_the_same_rows_of_both_halves_gains_without_a_word() -> None:
    assert not told(made(), guided, prompt=32, query=lambda ids: (ids == MASK).chunk(2)[0].repeat(2, 1))


def test_where_a_query_asks_for_few_rows_the_line_that_reads_nearly_all_is_named() -> None:
    (message,) = told(made(), lambda model, ids, _: model(ids)[ids >= 0], query=lambda ids: ids.cumsum(1) < 10 * MASK)
    assert "the loop reads nearly every row at test_advice.py:" in message
    assert "query=" not in message


def test_a_query_that_asks_for_every_row_is_named() -> None:
    (message,) = told(made(), guided, query=lambda ids: ids >= 0)
    assert "query= asks for nearly every row in 9 of them, called at test_advice.py:" in message


@torch.no_grad()
def test_the_report_tells_rows_by_sample_and_that_a_query_asked_for_them() -> None:
    optimized, ids = marche_fx.transform(made(), query=lambda ids: ids == MASK, compile=False), words()
    with marche_fx.decoding(optimized):
        for number in range(3):
            guided(optimized, ids, number)
    session = marche_fx.report(optimized).session
    assert session is not None
    by_query = {rows for own in session.causes for line, rows, _ in own.reads if line.endswith(", by query")}
    assert by_query == {(56, 56, 64, 64)}
    assert {rows for own in session.causes for _, rows, _ in own.reads} - by_query == {(56, 56, 56, 56)}
    assert "by query" in str(session)
    assert "56 56 64 64" in str(session)


class Mixing(models.Words):
    """Whose ids meet those around them before attention."""

    def __init__(self) -> None:
        super().__init__()
        self.around = nn.Conv1d(models.D, models.D, 15, padding=7)

    def embedded(self, ids: Tensor) -> Tensor:
        return super().embedded(ids) + self.around(self.word(ids).mT).mT


def test_what_forced_few_calls_is_not_named_for_the_others_but_what_changed_half_of_their_tokens() -> None:
    def some(model: Any, ids: Tensor, number: int) -> Tensor:
        ids = torch.where((torch.arange(ids.shape[1]) + number) % 24 == 0, 1, torch.full_like(ids, 2))
        return model(ids)[:, torch.arange(64 if number == 1 else 56)]

    (message,) = [own for own in told(made(Mixing), some) if "hardly anything is gained" in own]
    assert "had changed, were read or refreshed; in " in message
    assert "'ids', read by aten." in message
    assert "tolerance={'ids': 0.3}" in message


def test_ids_that_changed_half_of_the_tokens_are_not_to_be_allowed_to_move() -> None:
    (message,) = told(made(), most_anew)
    assert "'ids', read by aten.embedding" in message
    assert "had changed half of them or more. Fewer tokens a step" in message


def most_anew(model: Any, ids: Tensor, number: int) -> Tensor:
    """Seven of eight words are others in every call."""
    return model(torch.where(torch.arange(ids.shape[1]) % 8 == 0, ids, (ids + number) % models.WORDS))[:, 8:12] + 0


def test_where_a_policy_bounds_what_is_read_no_other_bound_is_advised() -> None:
    def every_row(model: Any, ids: Tensor, number: int) -> Tensor:
        return most_anew(lambda ids: model(ids)[ids >= 0][None], ids, number)

    (message,) = told(made(), every_row, refresh=SelectiveRefresh(0.05, queried=0.1))
    assert "the loop reads" not in message
    assert "had changed half of them or more" in message


def test_a_policy_that_asks_for_most_tokens_is_named() -> None:
    (message,) = told(made(), lambda model, ids, _: model(ids)[:, 8:12] + 0, refresh=SelectiveRefresh(0.85, warmup=1))
    assert "more than 80% of the tokens" in message


@pytest.mark.parametrize("refresh", ["exact", None])
def test_who_asks_for_all_tokens_or_gains_is_told_nothing(refresh: str | None) -> None:
    assert not told(made(), lambda model, ids, _: model(ids)[:, 8:12] + 0, refresh=refresh)


def test_a_short_session_says_nothing() -> None:
    assert not told(made(), lambda model, ids, _: model(ids)[ids >= 0], steps=findings.FEWEST - 1)


class Short(models.Words):
    """With a loop of its own of as many calls as are asked for."""

    def sample(self, steps: int, rows: int = 4) -> Tensor:
        ids = words()
        for number in range(steps):
            resolved(self(ids)[:, torch.arange(rows)])
            ids = reveal(ids, number)
        return ids


@torch.no_grad()
def told_of_generations(
    model: nn.Module, *arguments: Any, generations: int = 2, around: bool = False, **options: Any
) -> list[list[str]]:
    """What is warned of in each of some generations by the model's loop, in sessions ``around`` it or its own."""
    optimized: Any = marche_fx.transform(model, compile=False, loop=None if around else "sample", **options)
    found = []
    for _ in range(generations):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with marche_fx.decoding(optimized) if around else contextlib.nullcontext():
                optimized.sample(*arguments)
        found.append([str(own.message) for own in caught if issubclass(own.category, UserWarning)])
    return found


@pytest.mark.parametrize("steps", [2, 3, 4, 5])
def test_a_generation_that_ends_with_the_warm_up_is_told_of_once(steps: int) -> None:
    (message,), later = told_of_generations(made(Short), steps, *(64,) * (steps > 3))
    assert not later
    assert message.startswith(f"100% of the rows of Short.forward were computed in {steps} calls")
    if steps > 3:
        assert "the loop reads nearly every row at test_advice.py:" in message
        assert message.endswith(
            "Besides, SelectiveRefresh() computes the first 3 calls of a generation in full: give the policy warmup=1, "
            "too"
        )
    else:
        assert "SelectiveRefresh() computes the first 3 calls of a generation in full, and these were most" in message
        assert message.endswith("pass refresh=SelectiveRefresh(warmup=1)")


def test_a_session_that_ends_with_the_warm_up_is_told_of_at_the_second_one() -> None:
    first, (message,), third = told_of_generations(made(Short), 3, around=True, generations=3)
    assert not first
    assert "computes the first 3 calls of a generation in full" in message
    assert not third


@pytest.mark.parametrize(("steps", "refresh"), [(1, None), (3, "exact"), (3, SelectiveRefresh(warmup=1)), (12, None)])
def test_without_a_call_in_warm_up_that_could_reuse_another_nothing_is_said(steps: int, refresh: Any) -> None:
    assert told_of_generations(made(Short), steps, refresh=refresh) == [[], []]


IN_FULL = [
    SelectiveRefresh(1.0),
    SelectiveRefresh([1.0, 1]),
    StalenessRefresh(every=1),
    InterleavedRefresh(period=1),
    StalenessRefresh(0.1) + StalenessRefresh(1.0),
]


@pytest.mark.parametrize("refresh", IN_FULL, ids=repr)
def test_who_asks_for_all_tokens_is_not_advised_to_begin_sooner(refresh: RefreshPolicy) -> None:
    assert told_of_generations(made(Short), 3, refresh=refresh) == [[], []]


@torch.no_grad()
def test_a_short_generation_of_a_model_that_gains_by_longer_ones_is_no_news() -> None:
    optimized: Any = marche_fx.transform(made(Short), loop="sample", compile=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steps in (12, 3, 2):
            optimized.sample(steps)


def test_of_a_sum_of_policies_the_longest_warm_up_is_told() -> None:
    policy = SelectiveRefresh(0.05, warmup=1) + StalenessRefresh(0.05, warmup=4)
    (message,), _ = told_of_generations(made(Short), 3, refresh=policy)
    assert "computes the first 4 calls" in message
    assert message.endswith("SelectiveRefresh(fraction=0.05, warmup=1) + StalenessRefresh(fraction=0.05, warmup=1)")


class Begins(RefreshPolicy):
    """A policy of one's own."""

    warmup = 3

    def choose(self, history: marche_fx.History) -> marche_fx.Refresh:
        return marche_fx.Refresh(history.tokens if history.step < self.warmup else 0, history.age)


def test_a_policy_of_ones_own_is_told_to_begin_sooner() -> None:
    (message,), _ = told_of_generations(made(Short), 3, refresh=Begins())
    assert message.endswith("let Begins begin sooner")


def test_a_result_read_whole_is_told_how_to_ask_for_rows() -> None:
    messages = told(made(), lambda model, ids, _: model(ids).softmax(-1))
    assert "returns the tokens whose results are read, a bool mask (2, 64) (64 tokens)" in messages[0]


class NoneAmongTokens(models.Words):
    """The only attention is to keys that are no tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = nn.Parameter(torch.randn(2, 4, 8, models.D // 4))
        self.q, self.k, self.v = (nn.Linear(models.D, models.D) for _ in range(3))

    def body(self, x: Tensor) -> Tensor:
        q, k, v = (own(x).unflatten(-1, (4, -1)).transpose(1, 2) for own in (self.q, self.k, self.v))
        pooled_k, pooled_v = (own.unflatten(2, (16, 4)).mean(3) for own in (k, v))
        return x + models.attend(q, pooled_k, pooled_v)


def test_a_signal_without_a_site_is_told_of_and_an_explicit_one_refused() -> None:
    def step(model: Any, ids: Tensor, _: int) -> Tensor:
        return model(ids)[:, 8:12] + 0

    messages = told(made(NoneAmongTokens), step)
    told_of = "no attention site of NoneAmongTokens.forward can be observed"
    assert any(told_of in own and "by age alone" in own for own in messages)
    with pytest.raises(marche_fx.ArgumentError, match="Name other sites"):
        told(made(NoneAmongTokens), step, refresh=SelectiveRefresh(0.1, sites="all"))


def test_a_model_changed_inside_of_a_session_is_told_of() -> None:
    model = made()
    model.scale = 1.0  # type: ignore[assignment]
    optimized = marche_fx.transform(model, compile=False)

    @torch.no_grad()
    def decode() -> None:
        with marche_fx.decoding(optimized):
            for number in range(4):
                resolved(optimized(words())[:, 8:12])
                optimized.scale = 2.0 + number  # type: ignore[assignment]

    with pytest.warns(UserWarning, match="'scale' was changed inside of a session"):
        decode()


@pytest.mark.parametrize("tolerance", [{"time": -1.0}, {"time": True}, {3: 0.1}, 0.5, {"time": "far"}])
def test_a_tolerance_is_a_number_by_the_name_of_an_argument(tolerance: Any) -> None:
    with pytest.raises(marche_fx.ArgumentError, match="tolerance"):
        marche_fx.transform(made(models.Timed), tolerance=tolerance)


def test_a_tolerance_for_an_argument_that_no_step_has_is_refused() -> None:
    with pytest.raises(marche_fx.ArgumentError, match=r"'tim', which is no tensor .* 'ids', 'time'"):
        told(made(models.Timed), far, tolerance={"tim": 0.3})


def test_what_may_move_is_drift_until_it_moves_further() -> None:
    model, ids = made(models.Timed), words()
    optimized = marche_fx.transform(
        model, refresh=SelectiveRefresh(0.1, warmup=1), tolerance={"time": 0.4}, compile=False
    )
    counts = []
    with torch.no_grad(), marche_fx.decoding(optimized) as session:
        for number, time in enumerate((1.0, 1.05, 1.1, 30.0, 30.1)):
            ids = reveal(ids, number)
            resolved(optimized(ids, torch.full((2,), time))[:, 8:12])
            counts.append(session.records[-1].active)
    assert [own == models.N for own in counts] == [True, False, False, True, False]


def drawn(model: Any, ids: Tensor, number: int) -> Tensor:
    """Pieces for all masked tokens, drawn from what PyTorch checks to be a distribution."""
    pieces = torch.distributions.Categorical(logits=model(ids)).sample()
    return pieces[ids == MASK]


@pytest.fixture(params=[True, False])
def checks(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether torch.distributions checks what a loop draws from; whoever loads the compiler has no checks otherwise."""
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(request.param)
    yield request.param
    torch.distributions.Distribution.set_default_validate_args(before)


def test_a_check_of_a_distribution_changes_nothing_that_is_said(checks: bool) -> None:
    assert not told(made(), drawn, prompt=0, steps=8)


def test_a_check_is_named_where_the_rows_that_are_drawn_behind_it_are_others_in_every_call(checks: bool) -> None:
    def by_turns(model: Any, ids: Tensor, number: int) -> Tensor:
        pieces = torch.distributions.Categorical(logits=model(ids)).sample()
        return pieces[:, number % 3 :: 3]

    found = told(made(), by_turns, steps=8)
    assert len(found) == checks
    if checks:
        assert "Words.forward ran again for rows of its result that are read at test_advice.py:" in found[0]
        assert "set_default_validate_args(False)" in found[0]


def test_a_check_of_what_was_read_as_a_whole_before_is_not_told_of(checks: bool) -> None:
    def weighed(model: Any, ids: Tensor, number: int) -> Tensor:
        logits = model(ids)
        return torch.distributions.Categorical(logits=logits * logits.std(1, keepdim=True)).sample()

    (message,) = told(made(), weighed, steps=8)
    assert "a result of Words.forward was read as a whole, and only" in message


@torch.no_grad()
def test_a_loop_that_leaves_the_model_in_training_is_not_told_of_a_change() -> None:
    optimized, ids = marche_fx.transform(made(), compile=False), words()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with marche_fx.decoding(optimized):
            for number in range(4):
                optimized(ids)[:, 8:12] + 0
                ids = reveal(ids, number)
            optimized.train()
    with pytest.raises(marche_fx.UnsupportedModelError, match="training mode"):
        optimized(ids)


def pairs(model: Any, ids: Tensor, number: int) -> Tensor:
    """Two pieces a token, drawn of a distribution of each: tokens and pieces become one dimension there."""
    logits = model(ids).unflatten(-1, (2, -1))
    return torch.distributions.Categorical(logits=logits).sample()[ids == MASK]


def test_what_a_distribution_draws_of_a_whole_is_not_taken_for_its_check(checks: bool) -> None:
    (whole,) = told(made(), pairs, steps=8)
    assert "a result of Words.forward was read as a whole, and only" in whole
    assert "Read the rows you need, as in logits[rows], or pass query=" in whole
    assert "torch.distributions" not in whole


def test_a_whole_that_is_read_after_rows_of_it_is_told_of_where_it_has_old_ones() -> None:
    def entropy(model: Any, ids: Tensor, number: int) -> Tensor:
        logits = model(ids)
        chosen = logits[:, 8:12] * 1
        return chosen + logits.logsumexp(-1).sum(1)[:, None, None]

    (message,) = told(made(), entropy, refresh=SelectiveRefresh(0.1, warmup=1))
    assert "a result of Words.forward was read as a whole, and only" in message
    query = (torch.arange(models.N) // 4 == 2).expand(2, -1)
    assert not told(made(), entropy, refresh=SelectiveRefresh(0.1, warmup=1), query=lambda ids, **_: query)
    assert not told(made(), entropy, refresh="exact")


def test_what_a_loop_keeps_is_told_of_where_it_is_read() -> None:
    kept: list[Tensor] = []

    def keeping(model: Any, ids: Tensor, number: int) -> Tensor:
        pieces = model(ids).argmax(-1)
        kept.append(pieces.clone())
        return pieces[:, 8:12] * 1

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        assert not told(made(), keeping, steps=8)
        kept[0].sum()
        assert not found, "all tokens ran in the first call"
        kept[-3].sum()
        kept[-2].sum()
    (message,) = found
    assert "a result of Words.forward was read as a whole, and only" in str(message.message)
    assert message.filename == __file__


def test_a_whole_that_rows_are_computed_through_is_told_of_no_more_than_they_are() -> None:
    def banned(model: Any, ids: Tensor, number: int) -> Tensor:
        logits = model(ids)
        logits.index_fill_(-1, torch.tensor([5]), -torch.inf)
        return logits[ids == MASK][:, 5] * 1

    assert not told(made(), banned, steps=8, refresh=SelectiveRefresh(0.1, warmup=1))


class Known(nn.Module):
    """Told which tokens are known, a longer list in every call, as NOVA's encoder is."""

    def __init__(self) -> None:
        super().__init__()
        self.words = models.Words()

    def forward(self, ids: Tensor, known: Tensor, scale: int = 1) -> Tensor:
        found: Tensor = self.words(ids)
        return found + scale * known.sum(1)[:, None, None]


def test_calls_of_other_shapes_that_reuse_nothing_are_told_of_with_the_argument() -> None:
    def longer(model: Any, ids: Tensor, number: int) -> Tensor:
        return model(ids, torch.zeros(2, number + 1))[:, 8:12] * 1

    (message,) = told(made(Known), longer, steps=8)
    assert "100% of the rows of Known.forward were computed in 8 calls" in message
    assert "7 of them found nothing to reuse, since 'known' had another shape in each" in message
    assert not told(made(Known), longer, steps=8, refresh="exact")


def test_calls_with_other_numbers_that_reuse_nothing_are_told_to_pass_tensors() -> None:
    def scaled(model: Any, ids: Tensor, number: int) -> Tensor:
        return model(ids, torch.zeros(2, 1), number)[:, 8:12] * 1

    (message,) = told(made(Known), scaled, steps=6)
    assert "since arguments that are no tensors were others in each. Pass numbers that change as tensors" in message

"""What a user is told of a session that gains nothing, or reads old rows."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.lazy.tensor import resolved
from marche_fx.runtime import findings
from tests.loops import models
from tests.loops.loops import reveal, words
from tests.runtime.telling import far, made, most_anew, told


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


@pytest.mark.parametrize("tokens", [4, 9])
@pytest.mark.parametrize("moves", [False, True])
def test_of_few_tokens_it_is_told_that_all_run(tokens: int, *, moves: bool) -> None:
    def frames(model: Any, ids: Tensor, number: int) -> Tensor:
        return model(torch.full((2, tokens), number if moves else 0))[:, -1] + 0

    torch.manual_seed(0)
    body = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.Sequential(nn.Embedding(models.WORDS, 16), body).eval().requires_grad_(False)
    (message,) = told(model, frames)
    assert f"a sample has {tokens} tokens, and a step computes a multiple of 8 of them" in message


def test_a_value_that_moves_further_than_it_may_is_told_so() -> None:
    (message,) = told(made(models.Timed), far, tolerance={"time": 0.05})
    assert "'time', read by aten.add (models.py:" in message
    assert "which moved by more than the 0.05 of its size that it may. Let it move further: " in message
    assert "tolerance={'time': 0.1}" in message


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


def test_a_policy_that_asks_for_most_tokens_is_named() -> None:
    (message,) = told(made(), lambda model, ids, _: model(ids)[:, 8:12] + 0, refresh=SelectiveRefresh(0.85, warmup=1))
    assert "more than 80% of the tokens" in message


@pytest.mark.parametrize("refresh", ["exact", None])
def test_who_asks_for_all_tokens_or_gains_is_told_nothing(refresh: str | None) -> None:
    assert not told(made(), lambda model, ids, _: model(ids)[:, 8:12] + 0, refresh=refresh)


def test_a_short_session_says_nothing() -> None:
    assert not told(made(), lambda model, ids, _: model(ids)[ids >= 0], steps=findings.FEWEST - 1)


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
    assert "since 'scale', of which no part is a tensor, was another in each. Pass numbers that change as" in message


class Counts(nn.Module):
    """Asks how many tokens are hidden, for whoever reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden = models.Words(), 0

    def forward(self, ids: Tensor) -> Tensor:
        self.hidden = int((ids == models.MASK).sum())
        found: Tensor = self.words(ids)
        return found


def test_calls_that_ask_for_other_values_and_reuse_nothing_are_told_of_by_the_line() -> None:
    (message,) = told(made(Counts), lambda model, ids, number: model(ids)[:, 8:12] * 1, steps=6)
    assert "since the model asks for values of its arguments at test_advice.py:" in message
    assert "where the number is for somebody else, take it outside of the step" in message


def decided_by_the_whole(model: Any, ids: Tensor, number: int) -> Tensor:
    """As discrete flow matching: what all rows say decides which of them move, each time others."""
    logits = model(ids)
    chance = torch.rand(ids.shape[1], generator=torch.Generator().manual_seed(number))
    moves = chance < 0.4 + 0 * logits.mean((0, 1)).sum()
    rows: Tensor = logits[:, moves]
    return rows.argmax(-1)


def test_rows_that_a_read_as_a_whole_decides_are_why_nothing_is_gained() -> None:
    (whole, message) = told(made(), decided_by_the_whole, refresh=SelectiveRefresh(0.5))
    assert "was read as a whole, and only" in whole
    assert "of them its result was read as a whole at test_advice.py:" in message
    assert "it ran again for rows that are read at test_advice.py:" in message
    assert told(made(), decided_by_the_whole, refresh="exact") == []

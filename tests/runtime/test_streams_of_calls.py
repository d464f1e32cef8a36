"""Calls of one session under several conditions: each is as if it had a transformed model to itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import marche_fx
from marche_fx import InterleavedRefresh, SelectiveRefresh
from marche_fx.api.optimization import optimization_of
from marche_fx.runtime.turns import MOST_STREAMS
from tests.networks import Transformer
from tests.sessions import D, N, records, steps


class Conditioned(nn.Module):
    """Tokens under a vector, or behind vectors of a text, or under a switch."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Transformer(N, D, 2, depth=2)
        self.joined = Transformer(N + 4, D, 2, depth=2)

    def forward(self, x: Tensor, vector: Tensor | None = None, text: Tensor | None = None, off: bool = False) -> Tensor:
        if vector is not None:
            x = x + vector[:, None]
        if off:
            x = 0.5 * x
        return self.body(x) if text is None else self.joined(torch.cat([text, x], 1))[:, 4:]


def made() -> Conditioned:
    torch.manual_seed(0)
    return Conditioned().eval().requires_grad_(False)


def vectors(count: int) -> list[Tensor]:
    return list(torch.randn(count, 2, D, generator=torch.Generator().manual_seed(4)))


def texts(count: int) -> list[Tensor]:
    return list(torch.randn(count, 2, 4, D, generator=torch.Generator().manual_seed(5)))


POLICIES = {
    "selective": lambda: SelectiveRefresh(0.1, warmup=1),
    "interleaved": lambda: InterleavedRefresh(3, warmup=1),
}


def transformed(policy: str) -> nn.Module:
    return marche_fx.transform(made(), refresh=POLICIES[policy](), compile=False)


Calls = list[tuple[int, dict[str, Any]]]
"""For each call its branch and what it is called with."""


def run(calls: Calls, models: Callable[[int], nn.Module]) -> list[Tensor]:
    """The rows that each call reads, with a session open on every model."""
    owners = {id(own): own for own in map(models, {branch for branch, _ in calls})}
    sessions = [marche_fx.decoding(own) for own in owners.values()]
    for session in sessions:
        session.__enter__()
    found = [models(branch)(**given)[:, 8:12].clone() for branch, given in calls]
    for session in sessions:
        session.__exit__(None, None, None)
    return found


def check(calls: Calls, policy: str) -> nn.Module:
    """One session must give what a transformed model for each branch gives."""
    one = transformed(policy)
    own = {branch: transformed(policy) for branch in {branch for branch, _ in calls}}
    with torch.no_grad():
        together, apart = run(calls, lambda _: one), run(calls, own.__getitem__)
    for number, (left, right) in enumerate(zip(together, apart)):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5, msg=f"call {number}")
    return one


def streams(optimized: nn.Module) -> list[int]:
    return [own.stream for own in records(optimized)]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("branches", [2, 3])
def test_guidance_by_calls_in_turn_has_a_stream_for_each(branches: int, policy: str) -> None:
    conditions = vectors(branches)
    calls = [(number, {"x": x, "vector": own}) for x in steps(8) for number, own in enumerate(conditions)]
    assert streams(check(calls, policy)) == [*range(branches)] * 8


@pytest.mark.parametrize("policy", POLICIES)
def test_guidance_may_start_late_and_pause(policy: str) -> None:
    with_text, without = vectors(2)
    calls: Calls = []
    for step, x in enumerate(steps(12)):
        calls.append((0, {"x": x, "vector": with_text}))
        if step in (3, 4, 5, 9, 10):
            calls.append((1, {"x": x, "vector": without}))
    check(calls, policy)


@pytest.mark.parametrize("policy", POLICIES)
def test_calls_that_differ_in_a_plain_value_are_two_streams(policy: str) -> None:
    calls = [(int(off), {"x": x, "off": off}) for x in steps(6) for off in (False, True)]
    assert streams(check(calls, policy)) == [0, 1] * 6


@pytest.mark.parametrize("policy", POLICIES)
def test_batches_may_be_doubled_in_some_steps(policy: str) -> None:
    with_text, without = vectors(2)
    calls: Calls = []
    for step, x in enumerate(steps(10)):
        if step % 3 == 1:
            calls.append((1, {"x": torch.cat([x, x]), "vector": torch.cat([with_text, without])}))
        else:
            calls.append((0, {"x": x, "vector": with_text}))
    check(calls, policy)


def test_a_context_among_the_tokens_is_told_when_calls_have_taken_a_turn() -> None:
    """From then on both begin anew, so that neither has rows of the other."""
    some, other = texts(2)
    calls = [(number, {"x": x, "text": own}) for x in steps(8) for number, own in enumerate((some, other))]
    one = transformed("interleaved")
    with torch.no_grad():
        found = run(calls, lambda _: one)
        expected = run(calls[2:3] + calls[4::2], lambda _: transformed("interleaved"))
        own = transformed("interleaved")
        expected = run([calls[2], *calls[4::2]], lambda _: own)
    assert streams(one) == [0, 0] + [1, 0] * 7
    for left, right in zip(found[2::2], expected):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_loop_that_masks_tokens_anew_is_one_stream() -> None:
    """As one does that draws all tokens and masks those again that are least likely, whichever they are."""
    optimized, (drawn,) = transformed("selective"), steps(1)
    with marche_fx.decoding(optimized):
        for count in range(6):
            x, first = torch.zeros(2, N, D), count * (count + 1) // 2
            x[:, first : first + count] = drawn[:, first : first + count]
            # One is drawn as it was three calls before.
            x[:, 1] = drawn[:, 1] if count in (1, 4) else x[:, 1]
            optimized(x)[:, 8:12].sum()
    assert streams(optimized) == [0] * 6


@torch.no_grad()
def test_a_masked_context_that_comes_first_is_told_when_calls_have_taken_two_turns() -> None:
    optimized, (drawn,) = transformed("selective"), steps(1)
    with marche_fx.decoding(optimized):
        for count in range(6):
            x = torch.zeros(2, N, D)
            x[:, : 2 * count] = drawn[:, : 2 * count]
            optimized(x)[:, 8:12].sum()
            x[:, -4:] = drawn[:, -4:]
            optimized(x)[:, 8:12].sum()
    assert streams(optimized) == [0] * 4 + [1, 0] * 4


def test_a_user_may_say_which_stream_a_call_belongs_to() -> None:
    some, other = texts(2)
    one, two = transformed("selective"), [transformed("selective") for _ in range(2)]
    with torch.no_grad(), marche_fx.decoding(one), marche_fx.decoding(two[0]), marche_fx.decoding(two[1]):
        for x in steps(6):
            for number, own in enumerate((some, other)):
                with marche_fx.stream(f"branch {number}"):
                    got = one(x, text=own)[:, 8:12].clone()
                torch.testing.assert_close(got, two[number](x, text=own)[:, 8:12], rtol=1e-5, atol=1e-5)
    assert streams(one) == [0, 1] * 6


@pytest.mark.parametrize("name", ["", None, 3])
def test_a_stream_has_a_name(name: Any) -> None:
    with pytest.raises(marche_fx.ArgumentError, match="named"), marche_fx.stream(name):
        pass


@torch.no_grad()
def test_steps_of_one_loop_are_one_stream_whichever_line_calls() -> None:
    optimized = transformed("selective")
    first, second, third = steps(3)
    with marche_fx.decoding(optimized):
        optimized(first)[:, 8:12].sum()
        optimized(second)[:, 8:12].sum()
        for x in (third, third + 0.0):
            optimized(x)[:, 8:12].sum()
    assert streams(optimized) == [0, 0, 0, 0]


@torch.no_grad()
def test_a_condition_that_moves_in_every_step_is_one_stream() -> None:
    optimized = transformed("selective")
    with marche_fx.decoding(optimized):
        for x, vector in zip(steps(6), vectors(6)):
            optimized(x, vector=vector)[:, 8:12].sum()
    assert streams(optimized) == [0] * 6


class Timed(nn.Module):
    """Tokens at a time, under a label."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Transformer(N, D, 2, depth=2)
        self.labels = nn.Embedding(5, D)

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        return self.body(x + torch.sin(time).reshape(-1, 1, 1) + self.labels(label)[:, None])


SHAPES = [(), (1,), (2,), (2, 1), (2, 1, 1)]


@cache
def at_a_time(shape: tuple[int, ...]) -> Any:
    """Transformed, whose time is of a shape; its capture serves all sessions."""
    torch.manual_seed(0)
    return marche_fx.transform(Timed().eval(), refresh=SelectiveRefresh(0.1, warmup=1), compile=False)


@pytest.mark.parametrize("shape", SHAPES)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_time_in_which_no_token_is_drawn_opens_no_stream(shape: tuple[int, ...], data: st.DataObject) -> None:
    """Whatever labels take turns, and at whichever steps nothing is drawn once time has moved together with tokens."""
    labels = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True), "labels")
    drawn = [True, True, *data.draw(st.lists(st.booleans(), min_size=4, max_size=8), "drawn")]
    optimized = at_a_time(shape)
    inputs = iter(steps(11))
    x = next(inputs)
    with marche_fx.decoding(optimized):
        for number, is_drawn in enumerate(drawn):
            x = next(inputs) if is_drawn else x
            for label in labels:
                optimized(x, torch.full(shape, 1.0 - number / 16), torch.tensor([label, label]))[:, 8:12].sum()
    assert streams(optimized) == [*range(len(labels))] * len(drawn)


@torch.no_grad()
def test_a_vector_that_moves_with_tokens_is_a_condition_still() -> None:
    """It may be a time and a label in one: calls under two of them for the same tokens are branches."""
    optimized, (first, *others) = transformed("selective"), vectors(4)
    with marche_fx.decoding(optimized):
        for x, vector in zip(steps(4), [first, *others]):
            optimized(x, vector=vector)[:, 8:12].sum()
        optimized(x, vector=torch.zeros_like(first))[:, 8:12].sum()
    assert streams(optimized) == [0, 0, 0, 0, 1]


class Pictured(nn.Module):
    """A picture among whose tokens a text stands: no argument shows that its own rows are tokens but the text."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv1d(3, D, 2, 2)
        self.body = Transformer(N + 4, D, 2, depth=2)

    def forward(self, picture: Tensor, text: Tensor) -> Tensor:
        return self.body(torch.cat([text, self.cut(picture).transpose(1, 2)], 1))[:, 4:]


@torch.no_grad()
def test_an_argument_that_only_looks_like_a_condition_becomes_one_stream() -> None:
    torch.manual_seed(0)
    optimized = marche_fx.transform(Pictured().eval(), refresh=SelectiveRefresh(0.1, warmup=1), compile=False)
    (text, _), picture = texts(2), torch.randn(2, 3, 2 * N)
    with marche_fx.decoding(optimized) as session:
        for step in range(10):
            picture = picture.clone()
            picture[:, :, 4 * step : 4 * step + 4] = torch.randn(2, 3, 4)
            optimized(picture, text)[:, 8:12].sum()
        assert len(session.streams) == 1
    assert len(set(streams(optimized)[5:])) == 1
    assert records(optimized)[-1].active < N + 4


class PicturedAtATime(nn.Module):
    """A picture that is cut behind its time, which is one number of each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.time, self.label, self.cut = nn.Linear(1, 3), nn.Embedding(5, D), nn.Conv1d(3, D, 2, 2)
        self.body = Transformer(N, D, 2, depth=2)

    def forward(self, picture: Tensor, time: Tensor, label: Tensor) -> Tensor:
        tokens = self.cut(picture + self.time(time[:, None])[..., None]).transpose(1, 2)
        found: Tensor = self.body(tokens + self.label(label)[:, None])
        return found


@torch.no_grad()
def test_a_picture_that_is_cut_behind_its_time_is_tokens() -> None:
    torch.manual_seed(0)
    model = PicturedAtATime().eval()
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.1, warmup=1), compile=False)
    picture = torch.randn(2, 3, 2 * N)
    with marche_fx.decoding(optimized):
        for step in range(8):
            picture = picture.clone()
            picture[:, :, 4 * step : 4 * step + 4] = torch.randn(2, 3, 4)
            for label in (1, 0):
                optimized(picture, torch.full((2,), 1 - step / 8), torch.full((2,), label))[:, 8:12].sum()
    assert streams(optimized) == [0, 1] * 8


@torch.no_grad()
def test_streams_are_bounded() -> None:
    optimized = transformed("selective")
    x, *_ = steps(1)
    with marche_fx.decoding(optimized) as session:
        for number in range(MOST_STREAMS + 3):
            with marche_fx.stream(f"branch {number}"):
                optimized(x)[:, 8:12].sum()
            assert len(session.streams) <= MOST_STREAMS
    assert optimization_of(optimized).last_session is session

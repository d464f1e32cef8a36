"""Calls of many sequences or conditions that take turns in one session."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import marche_fx
from marche_fx import SelectiveRefresh
from marche_fx.runtime.turns import MOST_STREAMS, REMEMBERED, USUAL_STREAMS
from tests.networks import Transformer
from tests.sessions import D, records

N, WORDS = 32, 12
MASK = WORDS - 1


class Words(nn.Module):
    """Ids under a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.word = nn.Embedding(WORDS, D)
        self.body = Transformer(N, D, 2, depth=2)

    def forward(self, ids: Tensor, vector: Tensor | None = None) -> Tensor:
        x = self.word(ids)
        return self.body(x if vector is None else x + vector[:, None])


@cache
def words(number: int) -> Any:
    """Transformed, all alike; its captures serve all sessions."""
    torch.manual_seed(0)
    return marche_fx.transform(
        Words().eval().requires_grad_(False), refresh=SelectiveRefresh(0.1, warmup=1), compile=False
    )


def sequence(seed: int, steps: int, prompt: int, drawn: int) -> list[Tensor]:
    """Ids ``[1, N]`` of a decoding: a prompt and masks, some of which are drawn in each step."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((1, N), MASK)
    ids[:, :prompt] = torch.randint(0, MASK, (prompt,), generator=generator)
    order = prompt + torch.randperm(N - prompt, generator=generator)
    found = [ids]
    for step in range(steps - 1):
        ids = ids.clone()
        own = order[step * drawn : (step + 1) * drawn]
        ids[:, own] = torch.randint(0, MASK, (len(own),), generator=generator)
        found.append(ids)
    return found


Call = tuple[int, tuple[Tensor, ...]]


def in_turn(sequences: Sequence[Sequence[tuple[Tensor, ...]]]) -> list[Call]:
    return [(number, own) for step in zip(*sequences, strict=True) for number, own in enumerate(step)]


@torch.no_grad()
def run(model: nn.Module, calls: Sequence[Call]) -> list[Tensor]:
    with marche_fx.decoding(model):
        return [model(*own)[:, -8:].clone() for _, own in calls]


def check(calls: Sequence[Call], count: int, settled: int) -> None:
    """From the round ``settled`` on each has a stream of its own, and rows as if it had been decoded alone since then.

    Alone, a sequence begins where its stream does.
    """
    found = run(words(0), calls)
    streams = [own.stream for own in records(words(0))]
    late = streams[settled * count :]
    owners = late[:count]
    assert len({*owners}) == count
    assert late == owners * (len(late) // count)
    for number in range(count):
        own = [place for place, (branch, _) in enumerate(calls) if branch == number]
        begun = next(place for place in own if streams[place] == owners[number] and is_full(place))
        rest = [place for place in own if place >= begun]
        alone = run(words(1), [calls[place] for place in rest])
        for place, expected in zip(rest, alone):
            torch.testing.assert_close(found[place], expected, rtol=1e-4, atol=1e-5)


def is_full(place: int) -> bool:
    """Whether a call's stream begins there."""
    made = records(words(0))
    stream = made[place].stream
    full = [at for at, own in enumerate(made) if own.stream == stream and own.active == N]
    return place == full[-1]


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_sequences_side_by_side_are_a_stream_each(data: st.DataObject) -> None:
    count = data.draw(st.integers(REMEMBERED + 1, MOST_STREAMS - 1), "count")
    prompt = data.draw(st.integers(6, 12), "prompt")
    drawn = data.draw(st.integers(1, 2), "drawn")
    seed = data.draw(st.integers(0, 1000), "seed")
    own = [[(ids,) for ids in sequence(seed + number, 6, prompt, drawn)] for number in range(count)]
    check(in_turn(own), count, settled=3)


@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_many_conditions_of_the_same_tokens_are_a_stream_each(data: st.DataObject) -> None:
    count = data.draw(st.integers(REMEMBERED + 1, MOST_STREAMS - 1), "count")
    drawn = data.draw(st.integers(1, 3), "drawn")
    seed = data.draw(st.integers(0, 1000), "seed")
    vectors = torch.randn(count, 1, D, generator=torch.Generator().manual_seed(seed))
    own = [[(ids, vector) for ids in sequence(seed, 6, 8, drawn)] for vector in vectors]
    with warnings.catch_warnings():
        # That all were in full at first, with what to do about it.
        warnings.simplefilter("ignore", UserWarning)
        check(in_turn(own), count, settled=3)


@given(data=st.data())
@settings(max_examples=12, deadline=None)
@torch.no_grad()
def test_a_loop_that_takes_back_what_it_drew_takes_no_turns(data: st.DataObject) -> None:
    """Whichever few tokens it masks anew, and however often."""
    seed, model = data.draw(st.integers(0, 1000), "seed"), words(0)
    back = data.draw(st.lists(st.integers(0, 3), min_size=20, max_size=20), "back")
    generator = torch.Generator().manual_seed(seed)
    ids = sequence(seed, 1, 8, 1)[0]
    with marche_fx.decoding(model) as session:
        for count in back:
            model(ids)[:, -8:].sum()
            ids = ids.clone()
            masked = (ids[0] == MASK).nonzero()[:, 0]
            known = 8 + (ids[0, 8:] != MASK).nonzero()[:, 0]
            ids[0, masked[torch.randperm(len(masked), generator=generator)[:4]]] = 3
            ids[0, known[torch.randperm(len(known), generator=generator)[:count]]] = MASK
        assert not any(own.are_taken for own in session.turns.values())


@torch.no_grad()
def test_generations_one_after_another_in_a_session_are_not_turns() -> None:
    model = words(0)
    with marche_fx.decoding(model) as session:
        for ids in itertools.chain(*(sequence(seed, 8, 8, 3) for seed in range(USUAL_STREAMS + 4))):
            model(ids)[:, -8:].sum()
            assert len(session.streams) <= USUAL_STREAMS
        assert not any(own.are_taken for own in session.turns.values())
    assert len({own.stream for own in records(model)}) > USUAL_STREAMS, "each begins anew"


@pytest.mark.parametrize("count", [MOST_STREAMS + 1, 2 * MOST_STREAMS])
@torch.no_grad()
def test_more_sequences_than_there_is_room_for_are_told_of_and_computed_in_full(count: int) -> None:
    torch.manual_seed(0)
    model = Words().eval()
    optimized = marche_fx.transform(model, refresh=SelectiveRefresh(0.1, warmup=1), compile=False)
    calls = in_turn([[(ids,) for ids in sequence(seed, 5, 8, 1)] for seed in range(count)])
    with pytest.warns(UserWarning, match=r"calls of Words\.forward belong to more than 16 streams .* each begins anew"):
        found = run(optimized, calls)
    for (_, own), rows in zip(calls[3 * count :], found[3 * count :]):
        torch.testing.assert_close(rows, model(*own)[:, -8:])


@torch.no_grad()
def test_more_named_streams_than_there_is_room_for_are_told_of() -> None:
    torch.manual_seed(0)
    model = marche_fx.transform(Words().eval(), refresh=SelectiveRefresh(0.1, warmup=1), compile=False)
    own = [sequence(number, 3, 8, 1) for number in range(MOST_STREAMS + 1)]
    names = [f"text {number}" for number in range(len(own))]
    with marche_fx.decoding(model):
        for name, ids in zip(names, own):
            with marche_fx.stream(name):
                model(ids[0])[:, -8:].sum()
        with (
            pytest.warns(
                UserWarning, match=r"calls of Words\.forward belong to more than 16 streams .* 'text 0' begins"
            ),
            marche_fx.stream(names[0]),
        ):
            model(own[0][1])[:, -8:].sum()

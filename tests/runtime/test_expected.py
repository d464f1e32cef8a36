"""Rows that are read one after another: the step runs once for all of them, where calls read alike."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import marche_fx
from marche_fx import RandomRefresh, Refresh, RefreshPolicy
from marche_fx.lazy.tensor import resolved
from marche_fx.runtime.choose import BUCKET
from marche_fx.runtime.records import StepRecord
from tests.networks import MaskedTextModel
from tests.sessions import positions, records

TOKENS, MASKED = 32, 6


class NoRefresh(RefreshPolicy):
    tolerance = 0.0

    def choose(self, history: Any) -> Refresh:
        return Refresh(0)


@cache
def optimized_by(refresh: RefreshPolicy) -> nn.Module:
    torch.manual_seed(0)
    return marche_fx.transform(MaskedTextModel(TOKENS, 16, 2).double().eval(), refresh=refresh, compile=False)


@torch.no_grad()
def decode(
    calls: Sequence[Sequence[Tensor]], refresh: RefreshPolicy, *, reads_all_first: bool = False
) -> list[StepRecord]:
    """Steps of a loop that reads each piece, bool ``[B, N]``, of each call by itself; one token changes in each."""
    optimized, ids = optimized_by(refresh), torch.full((len(calls[0][0]), TOKENS), MASKED)
    with marche_fx.decoding(optimized):
        for number, pieces in enumerate(calls):
            ids = ids.index_fill(1, torch.tensor([number]), number % MASKED)
            logits = optimized(ids, torch.zeros(len(ids), dtype=torch.float64))
            if reads_all_first:
                logits.sum()
            for piece in pieces:
                resolved(logits[piece])
    return records(optimized)


def in_pieces(rows: Tensor, count: int, random: random.Random) -> list[Tensor]:
    """Rows, bool ``[B, N]``, of which each is in one of so many pieces, in no order."""
    numbers = rows.flatten().nonzero()[:, 0].tolist()
    random.shuffle(numbers)
    found = []
    for first in range(count):
        piece = torch.zeros(rows.numel(), dtype=torch.bool)
        piece[numbers[first::count]] = True
        found.append(piece.view(rows.shape))
    return found


@pytest.mark.filterwarnings("ignore:a result of MaskedTextModel.forward was read as a whole")
@given(
    random=st.randoms(use_true_random=False),
    samples=st.sampled_from([1, 1, 2, 3]),
    pieces=st.integers(1, 9),
    reads_all_first=st.booleans(),
)
def test_rows_that_only_become_fewer_run_the_step_once_in_whatever_pieces_they_are_read(
    random: random.Random, samples: int, pieces: int, reads_all_first: bool
) -> None:
    rows, calls = rows_of(*range(14), samples=samples), []
    for number in range(5):
        # The token that changes is read no more.
        rows[:, number] = False
        calls.append(in_pieces(rows, pieces, random))
    found = decode(calls, RandomRefresh(0.1, warmup=1), reads_all_first=reads_all_first)
    assert not any(own.again for own in found)
    for record, read in zip(found, calls, strict=True):
        computed = torch.zeros(samples, TOKENS, dtype=torch.bool).scatter(1, positions(record), True)
        assert computed[torch.stack(read).any(0)].all(), "what is read is of its own call"


def rows_of(*tokens: int, samples: int = 1) -> Tensor:
    return torch.zeros(samples, TOKENS, dtype=torch.bool).index_fill(1, torch.tensor(tokens), True)


@pytest.mark.filterwarnings("ignore:\\w+.forward ran 8 times in 5 calls")
def test_rows_that_are_others_in_each_call_are_expected_once() -> None:
    calls = [[rows_of(6 * number + 1), rows_of(6 * number + 4)] for number in range(5)]
    found = [own for own in decode(calls, NoRefresh()) if not own.again]
    asked = [{*own.choice.queried[0].nonzero()[:, 0].tolist()} for own in found]
    # The first call is not known to be unlike the next.
    assert asked[1:] == [{1, 4, 7}, {13}, {19}, {25}]


def test_a_read_of_the_same_rows_again_leads_to_no_expectation() -> None:
    calls = [[rows_of(4 * number, 4 * number + 1)] * 2 for number in range(4)]
    asked = [{*own.choice.queried[0].nonzero()[:, 0].tolist()} for own in decode(calls, NoRefresh())]
    assert asked[1:] == [{4 * number, 4 * number + 1} for number in range(1, 4)]


@pytest.mark.filterwarnings("ignore:a result of MaskedTextModel.forward was read as a whole")
def test_rows_that_are_others_in_each_call_are_expected_once_behind_a_read_of_all_rows() -> None:
    calls = [[rows_of(6 * number + 1)] for number in range(5)]
    found = [own for own in decode(calls, NoRefresh(), reads_all_first=True) if not own.again]
    asked = [{*own.choice.queried[0].nonzero()[:, 0].tolist()} for own in found]
    # Where nobody says what is read, the changed token speaks for it.
    assert asked[1:] == [{1}, {2}, {3}, {4}]


@pytest.mark.filterwarnings("ignore:a result of MaskedTextModel.forward was read as a whole")
@pytest.mark.parametrize("room", [0.125, 0.25])
def test_a_bound_holds_for_rows_that_are_read_behind_a_read_of_all(room: float) -> None:
    calls = [[rows_of(*range(16, 32))]] * 4
    found = decode(calls, RandomRefresh(0.0, warmup=1, queried=room), reads_all_first=True)
    assert len(found) == 4
    for number, record in enumerate(found[1:], 1):
        # Besides the changed token, and rounded up to the next bucket.
        assert sum(record.counts) < room * TOKENS + 1 + BUCKET, number
        assert number in positions(record)[0]


@pytest.mark.parametrize("room", [0.25, 0.5])
def test_rows_that_are_expected_take_no_room_from_those_that_are_read(room: float) -> None:
    first, later = range(16, 24), range(8, 16)
    calls = [[rows_of(*first), rows_of(*later)]] * 4
    found = [own for own in decode(calls, RandomRefresh(0.0, warmup=1, queried=room)) if not own.again]
    for record in found[1:]:
        active = {*positions(record)[0].tolist()}
        assert {*first} <= active
        assert ({*later} <= active) == (room == 0.5), "where there is room for both, both are computed"

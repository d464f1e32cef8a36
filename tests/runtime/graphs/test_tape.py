"""The tests' own stand-in for CUDA graphs: what it shows of a step that would be wrong as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.runtime.graphs.tape import ForbiddenError, Tapes


def test_recording_does_nothing_and_a_replay_does_it_with_what_is_there_by_then() -> None:
    x, y, held = torch.ones(3), torch.zeros(3), []

    def run() -> None:
        y.add_(x)
        held.append(x * 2)

    tape = Tapes().record(run)
    assert torch.equal(y, torch.zeros(3))
    assert held[0].isnan().all()
    x.fill_(5.0)
    tape.replay()
    tape.replay()
    assert torch.equal(y, torch.full((3,), 10.0))
    assert torch.equal(held[0], torch.full((3,), 10.0))


@pytest.mark.parametrize(
    "read", [lambda x: x.sum().item(), lambda x: x.nonzero(), lambda x: x[x > 0], lambda x: bool(x.any())]
)
def test_what_the_host_reads_cannot_be_recorded(read: Callable[[Tensor], Any]) -> None:
    x, y = torch.ones(3), torch.zeros(3)

    def run() -> None:
        y.add_(x)
        read(x)

    with pytest.raises(ForbiddenError, match="not permitted"):
        Tapes().record(run)
    assert torch.equal(y, torch.zeros(3))


def test_a_number_of_the_time_of_recording_is_garbage_later() -> None:
    """As where a value is taken from a tensor that no replay writes."""
    x, held = torch.ones(3), []
    tapes = Tapes()
    first = tapes.record(lambda: held.append(x + 1))
    second = tapes.record(lambda: held.append(x + 2))
    second.replay()
    assert torch.equal(held[1], torch.full((3,), 3.0))
    first.replay()
    assert torch.equal(held[0], torch.full((3,), 2.0))
    assert held[1].isnan().all(), "graphs of one pool use the same memory"

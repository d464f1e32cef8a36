"""Random numbers that a step draws: those that decide nothing are drawn at every call, and are in no graph."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten


@dataclass(frozen=True)
class Draw:
    """Numbers that a step draws from ``[0, 1)``, whatever they are.

    Whoever draws behind the step draws what it would behind the original.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def make(self) -> Tensor:
        return torch.rand(self.shape, dtype=self.dtype, device=self.device)


OUTCOMES: dict[Any, Callable[[float], bool | None]] = {
    aten.lt.Scalar: lambda bound: True if bound >= 1 else False if bound <= 0 else None,
    aten.le.Scalar: lambda bound: True if bound >= 1 else False if bound < 0 else None,
    aten.gt.Scalar: lambda bound: True if bound < 0 else False if bound >= 1 else None,
    aten.ge.Scalar: lambda bound: True if bound <= 0 else False if bound >= 1 else None,
}
"""Comparisons of a number from ``[0, 1)`` with a bound, and what comes out whatever was drawn."""


def decide_draws(graph: fx.Graph) -> tuple[Draw, ...]:
    """Replace comparisons of random numbers that come out the same whatever is drawn.

    Before:  rand = rand_like(x);  lt = lt(rand, 0.0)
    After:   full = full([2, 9], False)

    Returns:
        what was drawn and is read no more, in its order; what is of no fixed size stays.
    """
    found = []
    for draw in [node for node in graph.nodes if node.target in (aten.rand.default, aten.rand_like.default)]:
        drawn = draw.meta["val"]
        if not all(isinstance(size, int) for size in drawn.shape):
            continue
        for user in list(draw.users):
            outcome = OUTCOMES[user.target](user.args[1]) if user.target in OUTCOMES else None
            if outcome is None:
                continue
            value = user.meta["val"]
            with graph.inserting_before(user):
                options = {"dtype": torch.bool, "device": value.device}
                full = graph.call_function(aten.full.default, (list(value.shape), outcome), options)
            full.meta = dict(user.meta)
            user.replace_all_uses_with(full)
            graph.erase_node(user)
        if not draw.users:
            graph.erase_node(draw)
            found.append(Draw(tuple(drawn.shape), drawn.dtype, drawn.device))
    return tuple(found)


@contextmanager
def draws_undone(devices: Iterable[torch.device]) -> Iterator[None]:
    """Leave the global generators of random numbers as they were."""
    indices = (torch.cuda.current_device() if own.index is None else own.index for own in devices if own.type == "cuda")
    numbers = sorted({*indices})
    before, cuda, plain = torch.get_rng_state(), [torch.cuda.get_rng_state(own) for own in numbers], random.getstate()
    known = bytes_of(before)
    try:
        yield
    finally:
        # Only what was drawn from: other threads may be drawing too.
        if bytes_of(torch.get_rng_state()) != known:
            torch.set_rng_state(before)
        if plain != random.getstate():
            random.setstate(plain)
        for number, state in zip(numbers, cuda):
            torch.cuda.set_rng_state(state, number)


def bytes_of(state: Tensor) -> bytes:
    return ctypes.string_at(state.data_ptr(), state.nbytes)

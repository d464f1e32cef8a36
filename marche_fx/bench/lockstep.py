"""All variants side by side: each decoding step by one after another, so that a busy machine slows all alike."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from .schedule import integrated
from .turn import Turn


@dataclass(frozen=True)
class Entrant:
    """What takes part.

    Attributes:
        count: decoding steps of its generation. timed: numbers of those that it runs.
        sampled: some of them, from which the time of all is estimated for comparison; the timed ones when empty.
        begin: opens a generation.
    """

    count: int
    timed: tuple[int, ...]
    begin: Callable[[], Turn]
    sampled: tuple[int, ...] = ()


@dataclass(frozen=True)
class Generation:
    """What one generation took.

    Attributes:
        turn: it, closed. seconds: of each part, over all decoding steps.
        estimated: the same from the sampled steps alone.
    """

    turn: Turn
    seconds: dict[str, float]
    estimated: dict[str, float]


def generate_side_by_side(
    entrants: Sequence[Entrant], rotation: int = 0, shown: Callable[[float], None] = lambda _: None
) -> list[Generation]:
    """A generation of each entrant, in their order.

    Args:
        rotation: number of the entrant that goes first in the first step; the next does in the next step.
        shown: called after each step with the share that is done.
    """
    taken: list[dict[int, dict[str, float]]] = [{} for _ in entrants]
    todo = agenda(entrants, rotation)
    with ExitStack() as stack, quiet_collector():
        turns = [stack.enter_context(entrant.begin()) for entrant in entrants]
        for done, (number, step) in enumerate(todo, 1):
            taken[number][step] = turns[number].step(step)
            shown(done / len(todo))
    found = []
    for turn, own, entrant in zip(turns, taken, entrants):
        sampled = {step: own[step] for step in entrant.sampled or entrant.timed}
        found.append(Generation(turn, totals(own, entrant.count), totals(sampled, entrant.count)))
    return found


def agenda(entrants: Sequence[Entrant], rotation: int) -> list[tuple[int, int]]:
    """``(entrant, step)`` in the order in which they run: by how far into its generation a step is."""
    places = []
    for number, entrant in enumerate(entrants):
        for step in entrant.timed:
            progress = step / entrant.count
            places.append((progress, (number - rotation - step) % len(entrants), number, step))
    return [(number, step) for _, _, number, step in sorted(places)]


def totals(taken: dict[int, dict[str, float]], count: int) -> dict[str, float]:
    """The seconds of each part over ``count`` steps, some of which were timed."""
    parts = next(iter(taken.values()))
    return {part: integrated({step: own[part] for step, own in taken.items()}, count) for part in parts}


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Python's garbage collector has only new objects to look through: captured graphs are many."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

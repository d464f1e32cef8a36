"""Successive halving: many candidates measured a little, fewer of them more, until few are left."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

C = TypeVar("C", bound=Hashable)


@dataclass(frozen=True)
class Measured(Generic[C]):
    """A candidate, what it costs and what it loses; of both, less is better."""

    candidate: C
    cost: float
    loss: float

    def beats(self, other: Measured[C]) -> bool:
        """Whether it is no worse in both, and better in one."""
        is_no_worse = self.cost <= other.cost and self.loss <= other.loss
        return is_no_worse and (self.cost < other.cost or self.loss < other.loss)


def front(found: Sequence[Measured[C]]) -> list[Measured[C]]:
    """Those that no other beats, from cheap to dear."""
    return sorted(
        (own for own in found if not any(other.beats(own) for other in found)), key=lambda own: (own.cost, own.loss)
    )


def best(found: Sequence[Measured[C]], count: int) -> list[Measured[C]]:
    """``count`` of them, those first that fewest others beat; of the front itself from both of its ends evenly."""
    beaten = {own.candidate: sum(other.beats(own) for other in found) for own in found}
    first = front(found)
    if len(first) > count:
        # Both ends are worth something to someone, and so is what lies between.
        return [first[round(place * (len(first) - 1) / max(count - 1, 1))] for place in range(count)]
    return sorted(found, key=lambda own: (beaten[own.candidate], own.loss))[:count]


def halve(
    candidates: Sequence[C], measure: Callable[[C, int], Measured[C]], rounds: int, keep: int
) -> list[Measured[C]]:
    """The best ``keep`` after so many rounds, each of which measures what is left more closely and keeps half of it.

    Args:
        measure: given a candidate and the number of the round.
    """
    left = list(candidates)
    found: list[Measured[C]] = []
    for number in range(rounds):
        found = [measure(own, number) for own in left]
        is_last = number == rounds - 1
        found = best(found, keep if is_last else max(keep, -(-len(found) // 2)))
        left = [own.candidate for own in found]
    return found

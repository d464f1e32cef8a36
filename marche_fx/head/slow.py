"""Values of time and condition: computed at some timesteps of a denoising, a few of them at a time."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from ..passes.rewrite.cut import Part
from .policy import SlowReuse, Stencil
from .program import HeadProgram, Values
from .schedule import Schedule, Time

STACKED = 512
"""So many rows, of several timesteps, are computed together."""

WIDEST = 3
"""So many computed timesteps before one may be what it is made of."""


class SlowValues:
    """What a part makes of time and condition in one denoising, of ``rows`` rows.

    Args:
        still: what all timesteps read. timed: of time alone, of all timesteps; empty where they come without rows, and
            are computed one by one. reuse: None to compute them at every timestep. wanted: numbers of the timesteps at
            which they are expected to be read.
    """

    def __init__(
        self,
        program: HeadProgram,
        part: Part,
        still: Values,
        timed: Values,
        rows: int,
        schedule: Schedule,
        reuse: SlowReuse | None,
        wanted: Iterable[int],
    ) -> None:
        self.program = program
        self.part = part
        self.still = still
        self.timed = timed
        self.rows = rows
        self.schedule = schedule
        self.reuse = reuse
        count = len(schedule.distinct)
        self.computed = tuple(range(count)) if reuse is None else reuse.computed(count)
        self.times = [own.key[0] for own in schedule.distinct]
        self.expected = sorted({own for number in wanted for own, _ in self.stencil(number)})
        self.known: dict[int, list[Tensor]] = {}
        self.count = 0
        """Timesteps at which they were computed so far."""

    def stencil(self, number: int) -> Stencil:
        return ((number, 1.0),) if self.reuse is None else self.reuse.stencil(number, self.computed, self.times)

    def kept(self, number: int, rows: int) -> list[Tensor]:
        """The values at a timestep, of the first ``rows`` rows."""
        stencil = self.stencil(number)
        self.forget(number)
        self.compute([own for own, _ in stencil])
        parts = [(self.known[own], weight) for own, weight in stencil]
        return [combined([(own[place][:rows], weight) for own, weight in parts]) for place in range(len(parts[0][0]))]

    def of_time(self, number: int, rows: int) -> Values:
        """What else the network reads of a timestep: ``[R, ..]`` for so many rows."""
        timed = self.timed or self.program.timed(self.still, [self.schedule.distinct[number]], rows)
        return self.program.at_time(timed, number if self.timed else 0, rows)

    def forget(self, number: int) -> None:
        """Drop what no timestep from ``number`` on is made of."""
        before = sorted(own for own in self.known if own < number)
        for own in before[:-WIDEST]:
            del self.known[own]

    def compute(self, wanted: list[int]) -> None:
        """Have these, and with them those that come next."""
        for number in wanted:
            if number not in self.known:
                together = self.following(number)
                found = self.program.slow(
                    self.part, self.still, self.timed_of(together), self.places(together), self.rows
                )
                self.known.update(zip(together, found, strict=True))
                self.count += len(together)

    def following(self, number: int) -> list[int]:
        """Timesteps to be computed together, from ``number`` on."""
        most = max(1, STACKED // self.rows) if self.timed else 1
        later = [own for own in self.expected if own > number and own not in self.known]
        return [number, *later][:most]

    def timed_of(self, numbers: list[int]) -> Values:
        return self.timed or self.program.timed(self.still, [self.schedule.distinct[numbers[0]]], self.rows)

    def places(self, numbers: list[int]) -> list[int]:
        return numbers if self.timed else [0]


def alone(program: HeadProgram, still: Values, rows: int, time: Time) -> Values:
    """What the network reads at a time of no schedule, computed for it alone."""
    timed = program.timed(still, [time], rows)
    found = program.at_time(timed, 0, rows)
    for part in (program.parts.slow, program.parts.slow_in_branches):
        (kept,) = program.slow(part, still, timed, [0], rows)
        found |= dict(zip(part.outputs, kept, strict=True))
    return found


def combined(parts: list[tuple[Tensor, float]]) -> Tensor:
    """The weighted sum; weights sum to one."""
    (first, weight), *others = parts
    if not others:
        return first
    found = first * weight
    for own, share in others:
        found = found.add_(own, alpha=share)
    return found

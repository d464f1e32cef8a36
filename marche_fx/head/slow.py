"""Values of time and condition: computed at some timesteps of a denoising, a few of them at a time."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from .policy import SlowReuse
from .program import HeadProgram, Values
from .schedule import Schedule, Time

STACKED = 512
"""So many rows, of several timesteps, are computed together."""

WIDEST = 3
"""So many computed timesteps before one may be what it is made of."""


class SlowValues:
    """The kept values of one denoising, of ``rows`` rows.

    Args:
        still: what all timesteps read. reuse: None to compute them at every timestep.
    """

    def __init__(
        self, program: HeadProgram, still: Values, rows: int, schedule: Schedule, reuse: SlowReuse | None
    ) -> None:
        self.program = program
        self.still = still
        self.rows = rows
        self.schedule = schedule
        self.reuse = reuse
        count = len(schedule.distinct)
        self.computed = tuple(range(count)) if reuse is None else reuse.computed(count)
        self.times = [own.key[0] for own in schedule.distinct]
        self.known: dict[int, list[Tensor]] = {}
        self.timed = program.timed(still, schedule.distinct, rows) if program.denoiser.is_stacked else {}
        self.count = 0
        """Timesteps at which they were computed so far."""

    def at(self, number: int, rows: int) -> Values:
        """What the network reads at a timestep, of the first ``rows`` rows, beside the noisy value."""
        program, time = self.program, self.schedule.distinct[number]
        timed = self.timed or program.timed(self.still, [time], self.rows)
        stencil = ((number, 1.0),) if self.reuse is None else self.reuse.stencil(number, self.computed, self.times)
        self.forget(number)
        self.compute([own for own, _ in stencil])
        parts = [(self.known[own], weight) for own, weight in stencil]
        kept = [combined([(own[place][:rows], weight) for own, weight in parts]) for place in range(len(parts[0][0]))]
        return {
            **program.at_time(timed, number if self.timed else 0, self.rows),
            **dict(zip(program.parts.slow.outputs, kept, strict=True)),
        }

    def forget(self, number: int) -> None:
        """Drop what no timestep from ``number`` on is made of."""
        before = sorted(own for own in self.known if own < number)
        for own in before[:-WIDEST]:
            del self.known[own]

    def compute(self, wanted: list[int]) -> None:
        """Have these, and with them those that come next."""
        for number in wanted:
            if number not in self.known:
                together = list(self.following(number))
                found = self.program.slow(self.still, self.timed_of(together), self.places(together), self.rows)
                self.known.update(zip(together, found, strict=True))
                self.count += len(together)

    def following(self, number: int) -> Iterator[int]:
        """Timesteps to be computed together, from ``number`` on."""
        most = max(1, STACKED // self.rows) if self.timed else 1
        later = (own for own in self.computed if own >= number and own not in self.known)
        return (own for own, _ in zip(later, range(most)))

    def timed_of(self, numbers: list[int]) -> Values:
        return self.timed or self.program.timed(self.still, [self.schedule.distinct[numbers[0]]], self.rows)

    def places(self, numbers: list[int]) -> list[int]:
        return numbers if self.timed else [0]


def alone(program: HeadProgram, still: Values, rows: int, time: Time) -> Values:
    """The same at a time of no schedule, computed for it alone."""
    return SlowValues(program, still, rows, Schedule((time,)), None).at(0, rows)


def combined(parts: list[tuple[Tensor, float]]) -> Tensor:
    """The weighted sum; weights sum to one."""
    (first, weight), *others = parts
    if not others:
        return first
    found = first * weight
    for own, share in others:
        found = found.add_(own, alpha=share)
    return found

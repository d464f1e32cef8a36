"""What is kept from call to call of one denoising: the same rows under the same condition, from noise to data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .calls import Call, Held, Key, Look, look
from .policy import HeadReuse
from .program import HeadProgram, Values
from .records import DenoisingRecord
from .schedule import Schedule, Time
from .slow import SlowValues, alone


class Denoising:
    """One denoising with a captured denoiser.

    Attributes:
        schedule: the times that are expected; None while none is known. seen: those of the calls so far.
        place: of the last call in the schedule. has_departed: whether a call was at another time than expected.
    """

    def __init__(self, program: HeadProgram, call: Call, reuse: HeadReuse, schedule: Schedule | None) -> None:
        self.program = program
        self.reuse = reuse
        self.schedule = schedule
        given = program.given(call)
        self.rows = len(given[program.noisy])
        self.conditions = [Held.of(given[node]) for node in program.conditions]
        held = {node: own.values for node, own in zip(program.conditions, self.conditions)}
        self.still = program.still(held, self.rows)
        self.slow = [] if schedule is None else self.slow_halves(schedule)
        """Of all rows, or of the conditional and the unconditional half."""
        self.seen: list[Time] = []
        self.learned = 0
        """How many of these are known to the denoisings that follow."""
        self.place = -1
        self.has_departed = False
        self.is_exact = True
        """Whether nothing was reused in the last call."""
        self.differences: list[Tensor] | None = None
        """Conditional less unconditional rows of what the exit reads, as they last were."""
        self.age = 0
        """Calls since then."""
        flops = program.denoiser.flops
        self.record = DenoisingRecord(self.rows, flops=flops["still"] * self.rows)

    def slow_halves(self, schedule: Schedule) -> list[SlowValues]:
        """Where the unconditional half is left out at some calls, its slow values are, too."""
        program, reuse = self.program, self.reuse
        timed = program.timed_of_all(self.still, schedule, self.rows)
        numbers = [schedule.numbers[own.key] for own in schedule.calls]
        if reuse.guidance == 1 or not program.has_halves or not timed:
            return [SlowValues(program, self.still, timed, self.rows, schedule, reuse.slow, numbers)]
        half = self.rows // 2
        return [
            SlowValues(program, program.rows_from(self.still, first, half), timed, half, schedule, reuse.slow, wanted)
            for first, wanted in ((0, numbers), (half, numbers[:: reuse.guidance]))
        ]

    def look(self, call: Call) -> Look:
        """What a call's times are, and whether its condition is this denoising's."""
        given = self.program.given(call)
        pairs = [(given[node], held) for node, held in zip(self.program.conditions, self.conditions)]
        return look([given[node] for node in self.program.times], pairs)

    def goes_on_with(self, call: Call, key: Key, is_same: bool, expected: Schedule | None) -> bool:
        """Whether a call is another of this denoising, rather than the first of the next.

        Args:
            expected: the times of a denoising, as far as is known by now.
        """
        if not is_same or len(self.program.given(call)[self.program.noisy]) != self.rows:
            return False
        # A loop that starts again does so at the first time, after others.
        first = self.seen[0].key if expected is None else expected.calls[0].key
        return key != first or len(self.seen) == 1

    def run(self, call: Call, key: Key) -> Any:
        """The results of the next call."""
        given = self.program.given(call)
        time = Time.of(key, [given[node] for node in self.program.times])
        place = None if self.schedule is None or self.has_departed else self.schedule.next_call(self.place, key)
        follows = place is not None and place == self.place + 1
        self.seen.append(time)
        self.has_departed |= self.schedule is not None and place is None
        self.is_exact = True
        is_full = self.is_full(follows)
        rows = self.rows if is_full else self.rows // 2
        values = {**self.still, **given, **self.slow_values(time, place, rows)}
        values |= self.program.enter(values)
        frontier = self.program.denoise(values, rows)
        if self.program.has_halves:
            frontier = self.both_halves(frontier, is_full)
        if place is not None:
            self.place = place
        self.count(rows, is_full)
        results = self.program.leave(values, frontier)
        if self.schedule is not None and self.place == len(self.schedule.calls) - 1:
            # Nothing is kept for a loop that went to its end.
            self.slow, self.differences = [], None
        return results

    def is_full(self, follows: bool) -> bool:
        """Whether both guidance halves are computed."""
        if not self.program.has_halves or self.differences is None or not follows:
            return True
        return self.age + 1 >= self.reuse.guidance

    def both_halves(self, frontier: list[Any], is_full: bool) -> list[Any]:
        """Values of both halves: those computed, or the conditional ones and these less their last difference."""
        if not is_full:
            assert self.differences is not None
            self.age += 1
            self.is_exact = False
            return [torch.cat([own, own - gap]) for own, gap in zip(frontier, self.differences, strict=True)]
        self.age = 0
        if self.reuse.guidance > 1:
            half = self.rows // 2
            self.differences = [own[:half] - own[half:] for own in frontier]
        return frontier

    def slow_values(self, time: Time, place: int | None, rows: int) -> Values:
        """Values of the time, and of time and condition, that the network reads."""
        program = self.program
        if not self.slow or place is None:
            self.count_slow(1, self.rows)
            self.record.slow += 1
            return alone(program, self.still, self.rows, time)
        number = self.slow[0].schedule.numbers[time.key]
        self.is_exact = number in self.slow[0].computed
        halves = []
        for own in self.slow if rows == self.rows else self.slow[:1]:
            before = own.count
            halves.append(own.kept(number, min(rows, own.rows)))
            self.count_slow(own.count - before, own.rows)
            self.record.slow += own.count - before if own is self.slow[0] else 0
        kept = halves[0] if len(halves) == 1 else [torch.cat(pair) for pair in zip(*halves)]
        return {**self.slow[0].of_time(number, self.rows), **dict(zip(program.parts.slow.outputs, kept, strict=True))}

    def count_slow(self, times: int, rows: int) -> None:
        """Count values of time and condition of so many rows at so many times; the time's own are of one row."""
        flops = self.program.denoiser.flops
        self.record.flops += times * (rows * flops["slow"] + flops["timed"])

    def count(self, rows: int, is_full: bool) -> None:
        flops = self.program.denoiser.flops
        self.record.calls += "F" if is_full else "c"
        self.record.flops += rows * flops["network"] + self.rows * flops["around"]
        self.record.original += self.rows * self.program.denoiser.flops_per_row

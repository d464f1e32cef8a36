"""What is kept from call to call of one denoising: the same rows under the same condition, from noise to data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..passes.rewrite.cut import Part
from .calls import Call, Held, Key, Look, look
from .policy import HeadReuse
from .program import HeadProgram, Values
from .records import DenoisingRecord
from .schedule import Announced, Schedule, Time
from .slow import SlowValues, alone


class Denoising:
    """One denoising with a captured denoiser.

    Attributes:
        schedule: the times that are expected; None while none is known. announced: under which announcement of its loop
            it began. seen: those of the calls so far.
        both, branches: numbers of the calls in the schedule that compute both halves, and residual branches.
        place: of the last call in the schedule. has_departed: whether a call was at another time than expected.
    """

    def __init__(
        self,
        program: HeadProgram,
        call: Call,
        reuse: HeadReuse,
        schedule: Schedule | None,
        announced: Announced | None = None,
    ) -> None:
        self.program = program
        self.reuse = reuse
        self.schedule = schedule
        self.announced = announced
        given = program.given(call)
        self.rows = len(given[program.noisy])
        self.conditions = [Held.of(given[node]) for node in program.conditions]
        held = {node: own.values for node, own in zip(program.conditions, self.conditions)}
        self.still = program.still(held, self.rows)
        self.record = DenoisingRecord(self.rows, flops=program.flops["still"] * self.rows)
        count = 0 if schedule is None else len(schedule.calls)
        self.both = reuse.calls_of_both_halves(count)
        self.branches = reuse.calls_of_branches(count, has_halves=program.has_halves)
        self.slow: dict[Part, list[SlowValues]] = {} if schedule is None else self.slow_parts(schedule)
        """By part of all rows, or of the conditional and the unconditional half."""
        self.seen: list[Time] = []
        self.learned = 0
        """How many of these are known to the denoisings that follow."""
        self.place = -1
        self.has_departed = False
        self.is_exact = True
        """Whether nothing was reused in the last call."""
        self.differences: list[Tensor] | None = None
        """Conditional less unconditional rows of what the exit reads, as they last were."""
        self.held: list[Tensor] | None = None
        """Values of residual branches, as they last were."""

    @property
    def has_ended(self) -> bool:
        """Whether the last of the calls that are expected was made."""
        return self.schedule is not None and self.place == len(self.schedule.calls) - 1

    @property
    def reuses_guidance(self) -> bool:
        return self.reuse.guidance > 1 and self.program.has_halves

    def slow_parts(self, schedule: Schedule) -> dict[Part, list[SlowValues]]:
        """Where the unconditional half or residual branches are left out at some calls, their slow values are, too."""
        program, rows = self.program, self.rows
        timed = program.timed_of_all(self.still, schedule, rows)
        self.record.flops += program.flops["timed"] * len(schedule.distinct) * bool(timed)
        every = frozenset(range(len(schedule.calls)))
        halves = [(0, rows, every)]
        if self.reuses_guidance and timed:
            halves = [(0, rows // 2, every), (rows // 2, rows // 2, self.both)]

        def of(part: Part, first: int, count: int, calls: frozenset[int]) -> SlowValues:
            still = self.still if count == rows else program.rows_from(self.still, first, count)
            wanted = {schedule.numbers[schedule.calls[number].key] for number in calls}
            return SlowValues(program, part, still, timed, count, schedule, self.reuse.slow, wanted)

        always, in_branches = program.parts.slow, program.parts.slow_in_branches
        return {
            part: [of(part, first, count, calls & own) for first, count, own in halves]
            for part, calls in ((always, every), (in_branches, self.branches))
            if part is always or part.outputs
        }

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
        first = self.seen[0].key if expected is None or self.announced is not None else expected.calls[0].key
        return key != first or len(self.seen) == 1

    def run(self, call: Call, key: Key) -> Any:
        """The results of the next call."""
        given = self.program.given(call)
        time = Time.of(key, [given[node] for node in self.program.times])
        place = None if self.schedule is None or self.has_departed else self.schedule.next_call(self.place, key)
        self.seen.append(time)
        self.has_departed |= self.schedule is not None and place is None
        self.is_exact = True
        is_full, has_branches = self.what_is_computed(place)
        rows = self.rows if is_full else self.rows // 2
        values = {**self.still, **given, **self.slow_values(time, place, rows, has_branches)}
        values |= self.program.enter(values)
        frontier = self.denoise(values, rows, has_branches)
        if self.program.has_halves:
            frontier = self.both_halves(frontier, is_full)
        if place is not None:
            self.place = place
        self.count(rows, is_full, has_branches)
        results = self.program.leave(values, frontier)
        if self.has_ended:
            # Nothing is kept for a loop that went to its end.
            self.slow, self.differences, self.held = {}, None, None
        return results

    def what_is_computed(self, place: int | None) -> tuple[bool, bool]:
        """Whether the next call, at this place of the schedule, computes both halves, and residual branches."""
        if self.schedule is None or place is None or place != self.place + 1:
            return True, True
        is_full = not self.program.has_halves or self.differences is None or place in self.both
        return is_full, self.held is None or place in self.branches

    def denoise(self, values: Values, rows: int, has_branches: bool) -> list[Any]:
        """What the exit reads of the first ``rows`` rows."""
        held = None if has_branches or self.held is None else [own[:rows] for own in self.held]
        frontier, kept = self.program.denoise(values, rows, held)
        if held is not None:
            self.is_exact = False
        elif self.reuse.branches is not None and self.reuse.branches.every > 1:
            self.held = kept
        return frontier

    def both_halves(self, frontier: list[Any], is_full: bool) -> list[Any]:
        """Values of both halves: those computed, or the conditional ones and these less their last difference."""
        if not is_full:
            assert self.differences is not None
            self.is_exact = False
            return [torch.cat([own, own - gap]) for own, gap in zip(frontier, self.differences, strict=True)]
        if self.reuses_guidance:
            half = self.rows // 2
            self.differences = [own[:half] - own[half:] for own in frontier]
        return frontier

    def slow_values(self, time: Time, place: int | None, rows: int, has_branches: bool) -> Values:
        """Values of the time, and of time and condition, that the network reads."""
        program = self.program
        if not self.slow or place is None:
            slow = program.flops["slow"] + program.flops["slow_in_branches"]
            self.record.flops += program.flops["timed"] + self.rows * slow
            self.record.slow += 1
            return alone(program, self.still, self.rows, time)
        found: Values = {}
        for part, halves in self.slow.items():
            if part is program.parts.slow or has_branches:
                found |= self.slow_values_of(part, halves if rows == self.rows else halves[:1], time, rows)
        always = self.slow[program.parts.slow][0]
        number = always.schedule.numbers[time.key]
        self.is_exact = number in always.computed
        self.record.flops += program.flops["timed"] * (not always.timed)
        return {**found, **always.of_time(number, self.rows)}

    def slow_values_of(self, part: Part, halves: list[SlowValues], time: Time, rows: int) -> Values:
        """What a part makes of time and condition, of the rows of these halves."""
        kept, is_always = [], part is self.program.parts.slow
        flops = self.program.flops["slow" if is_always else "slow_in_branches"]
        for own in halves:
            before = own.count
            kept.append(own.kept(own.schedule.numbers[time.key], min(rows, own.rows)))
            self.record.flops += (own.count - before) * own.rows * flops
        if is_always:
            self.record.slow = halves[0].count
        joined = kept[0] if len(kept) == 1 else [torch.cat(pair) for pair in zip(*kept)]
        return dict(zip(part.outputs, joined, strict=True))

    def count(self, rows: int, is_full: bool, has_branches: bool) -> None:
        flops = self.program.flops
        self.record.calls += ("F" if is_full else "c") if has_branches else ("H" if is_full else "h")
        self.record.flops += rows * flops["network" if has_branches else "shortcut"]
        self.record.flops += self.rows * (flops["entry"] + flops["exit"])
        self.record.original += self.rows * self.program.denoiser.flops_per_row

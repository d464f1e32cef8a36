"""What the calls of one step method come to: what was computed, and what forced it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, fx

from .program import Program, inputs_of, reader_of_several_ids, value_name
from .records import CallRecord

NEARLY_ALL = 0.9
"""A session that computed this share of the rows gained nothing worth the name."""

MOST_ASKED = 0.5
"""Of a session whose policy asked for more of the rows, it is no news that most were computed."""

FEWEST = 4
"""Calls of a session of which its share of rows says something."""

OFTEN = 1.5
"""So many runs of a step for each of its calls, and the user is told which reads it runs for."""


OFTEN_PARTED = 8
"""One of so many calls that opened a further stream is too many for conditions that take turns."""


@dataclass(frozen=True)
class Findings:
    """What the calls of one step method come to, on the host.

    Attributes:
        share: of the rows that the original computes. asked: of these, what the policy asked for. calls: of which
            something was read.
        forced: calls in which all tokens ran although the policy had not asked for it; those of ``warmed_up`` too,
            where these are half of the calls after the first.
        values: for each watched value, by its name and the argument to allow, in how many of the forced calls it
            changed nearly every token. partly: in how many of the others a value changed most tokens, likewise.
        readers: the same by line of the loop that reads nearly all rows, and whether it is the user's query that names
            them. mostly: by line that reads most rows but not nearly all. lopsided: by line that reads those of some
            samples, these samples, and whether a query does.
        runs: of the step in all calls. again: by lines, the calls that ran once more for rows that were read at the
            second of them, beside those that were read, or named by a query, at the first. behind: by lines, the calls
            that did behind a read as a whole at the first.
        oldest: steps since the oldest row was computed that was read by name.
        warmed_up: calls after the first of a stream that were among the policy's first ones in full, if these are half
            of the calls after the first, or more.
        anew: calls that found no row of the calls before, since their arguments were of another kind.
        parted: calls that were taken for the first of a further condition when another had been called twice, and was
            called again later.
        tokens: of a sample, in the call that had most.
    """

    share: float
    asked: float
    calls: int
    forced: int
    values: Counter[tuple[str, str]] = field(default_factory=Counter)
    partly: Counter[tuple[str, str]] = field(default_factory=Counter)
    readers: Counter[tuple[str, bool]] = field(default_factory=Counter)
    mostly: Counter[tuple[str, bool]] = field(default_factory=Counter)
    lopsided: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    runs: int = 0
    again: Counter[tuple[str, str, bool]] = field(default_factory=Counter)
    behind: Counter[tuple[str, str]] = field(default_factory=Counter)
    oldest: float = 0.0
    oldest_line: str = ""
    warmed_up: int = 0
    anew: int = 0
    tokens: int = 0
    parted: int = 0

    @property
    def has_parted(self) -> bool:
        """Whether nearly all was computed, much of it by calls that were taken for those of further conditions."""
        return self.calls >= FEWEST and self.share >= NEARLY_ALL and OFTEN_PARTED * self.parted >= self.calls

    @property
    def begins_anew(self) -> bool:
        """Whether nearly all was computed, most of it by calls that found nothing to reuse."""
        return self.calls >= FEWEST and self.share >= NEARLY_ALL and 2 * self.anew >= self.calls

    @property
    def has_gained_nothing(self) -> bool:
        """Whether nearly all was computed although the policy had not asked for it."""
        is_forced = 2 * self.forced >= self.calls or self.asked <= MOST_ASKED or self.runs_behind_whole_reads
        return self.calls >= FEWEST and self.share >= NEARLY_ALL and is_forced

    @property
    def has_only_warmed_up(self) -> bool:
        """Whether nearly all was computed, most of it because the policy's first calls are in full."""
        return self.share >= NEARLY_ALL and self.warmed_up > 0

    @property
    def runs_behind_whole_reads(self) -> bool:
        """Whether more calls ran once more behind a read as a whole than all tokens of were to run."""
        return 2 * self.behind.total() >= self.calls and self.behind.total() > self.forced

    @property
    def runs_often(self) -> bool:
        """Whether calls ran once more, most of them, for rows that were read one after another."""
        return self.calls >= FEWEST and self.runs >= OFTEN * self.calls and 2 * self.again.total() >= self.calls


def to_host(numbers: Sequence[Tensor]) -> list[float]:
    """Numbers on a device, in one transfer; those on the host are read without waiting."""
    if all(own.device.type == "cpu" for own in numbers):
        return [float(np.asarray(own.detach())) for own in numbers]
    device = next(own.device for own in numbers if own.device.type != "cpu")
    return torch.stack([own.detach().float().to(device) for own in numbers]).tolist()


def in_warmup(calls: Sequence[CallRecord], warmup: int) -> list[CallRecord]:
    """Of the policy's first ``warmup`` calls in full those that could have reused rows of another; none if few."""
    later = [own for own in calls if own.step > 0]
    found = [own for own in later if own.step < warmup and own.is_full]
    return found if 2 * len(found) >= len(later) else []


def find(calls: Sequence[CallRecord], warmup: int = 0) -> Findings:
    """Add up calls of one step method; waits for the device once.

    Args:
        warmup: of the policy.
    """
    done = [own for own in calls if own.active]
    warmed_up = in_warmup(done, warmup)
    # What would have forced these too is found in them.
    forced = [own for own in done if own.is_forced] + warmed_up
    numbers = [moved.float().mean() for own in forced for moved in own.changed]
    # Where the policy bounds what is read, no read makes all tokens run.
    unbounded = [own for own in forced if all(read.spared is None for read in own.reads)]
    numbers += [
        number for own in unbounded for read in own.reads if read.rows is not None for number in read.rows.unbind()
    ]
    reads = [read for own in done for read in own.reads]
    host = iter(to_host([*numbers, *(read.oldest for read in reads)]))
    values: Counter[tuple[str, str]] = Counter()
    partly: Counter[tuple[str, str]] = Counter()
    named: dict[tuple[Program, int], tuple[str, str]] = {}
    for own in forced:
        shares = [next(host) for _ in own.changed]
        if shares and 2 * max(shares) >= 1:
            number = shares.index(max(shares))
            moved = values if shares[number] >= NEARLY_ALL else partly
            value = own.program, number
            if value not in named:
                names = names_of_moved(*value, forced)
                named[value] = name_of_value(*value, names), argument_to_allow(*value, names)
            moved[named[value]] += 1
    readers: Counter[tuple[str, bool]] = Counter()
    mostly: Counter[tuple[str, bool]] = Counter()
    lopsided: Counter[tuple[str, str, bool]] = Counter()
    for own in unbounded:
        most: list[tuple[str, bool]] = []
        for read in own.reads:
            if read.rows is not None:
                rows = [next(host) for _ in range(len(read.rows))]
                whole = [number for number, count in enumerate(rows) if count >= NEARLY_ALL * own.visible]
                if len(whole) == len(rows):
                    readers[read.line, read.by_query] += 1
                elif not whole and 2 * min(rows) >= own.visible:
                    most.append((read.line, read.by_query))
                elif whole:
                    lopsided[read.line, samples_in_words(whole, len(rows)), read.by_query] += 1
        # Each line once a call, that of the first read before others.
        mostly.update(list(dict.fromkeys(most)))
    ages = [next(host) for _ in reads]
    by_name = [(age, read.line) for age, read in zip(ages, reads) if read.rows is not None]
    oldest, line = max(by_name, default=(0.0, ""))
    again = [pair for own in done if (pair := lines_that_run_again(own)) is not None]
    behind = [lines for own in done if (lines := lines_behind_a_whole_read(own)) is not None]
    visible = max(sum(own.visible for own in calls if own.visible), 1)
    return Findings(
        share=sum(own.computed for own in done) / visible,
        asked=sum(own.wanted for own in done) / visible,
        calls=len(done),
        forced=len(forced),
        values=values,
        partly=partly,
        readers=readers,
        mostly=mostly,
        lopsided=lopsided,
        runs=sum(own.runs for own in done),
        again=Counter(again),
        behind=Counter(behind),
        oldest=oldest,
        oldest_line=line,
        warmed_up=len(warmed_up),
        anew=calls_that_began_anew(done),
        parted=calls_that_parted(done),
        tokens=max((own.visible for own in done), default=0),
    )


def calls_that_began_anew(calls: Sequence[CallRecord]) -> int:
    """How many were the first of their kind of arguments in a stream that had calls of another kind, and no rows."""
    streams: dict[int, set[Program]] = {}
    anew = 0
    for own in calls:
        known = streams.setdefault(own.stream, set())
        anew += bool(known) and own.program not in known and not own.kept
        known.add(own.program)
    return anew


def calls_that_parted(calls: Sequence[CallRecord]) -> int:
    """How many opened a stream when another had been called twice, and was called again later.

    Conditions that take turns have all been called by then, and a sequence that is done is not called again.
    """
    last = {own.stream: number for number, own in enumerate(calls)}
    times: Counter[int] = Counter()
    parted = 0
    for number, own in enumerate(calls):
        is_first = own.stream not in times
        parted += is_first and any(count > 1 and last[stream] > number for stream, count in times.items())
        times[own.stream] += 1
    return parted


def lines_that_run_again(call: CallRecord) -> tuple[str, str, bool] | None:
    """Where rows were read first, where those for which the call ran again, and whether a query named the first ones.

    None where it ran once; or a result was read as a whole, of which the user is told otherwise; or the policy had no
    room for all rows at first.
    """
    later = next((own for own in call.reads if own.runs_again), None)
    if later is None or later.rows is None or later.spared is not None or call.reads[0].rows is None:
        return None
    return call.reads[0].line, later.line, call.reads[0].by_query


def lines_behind_a_whole_read(call: CallRecord) -> tuple[str, str] | None:
    """Where a result was read as a whole first, and where rows for which the call ran again; None where it ran once."""
    later = next((own for own in call.reads if own.runs_again and own.rows is not None), None)
    first = call.reads[0] if call.reads else None
    return None if later is None or first is None or first.rows is not None else (first.line, later.line)


def names_of_moved(program: Program, number: int, calls: Sequence[CallRecord]) -> Mapping[fx.Node, str]:
    """Names of the arguments that moved in full calls; where a watched value is computed from none of them, all."""
    moved = set().union(*(own.moved for own in calls if own.program is program))
    names = {node: name for node, name in program.input_names.items() if node in moved}
    return names if inputs_of(program.watched[number].node, names) else program.input_names


def name_of_value(program: Program, number: int, names: Mapping[fx.Node, str]) -> str:
    """The name of a watched value by those of ``names`` that it is computed from."""
    return value_name(program.plan, program.watched[number].node, names)


def argument_to_allow(program: Program, number: int, names: Mapping[fx.Node, str]) -> str:
    """Of ``names`` that a watched value is computed from the one that may be allowed to move: no tokens, if any.

    Empty where it is a number for each token that says which one it is, as an id does: no other is nearly the same.
    """
    own, dims = program.watched[number], program.plan.axes.dims
    node = own.node
    is_yes_or_no = dims.get(node) and node.meta["val"].dtype is torch.bool
    if is_yes_or_no or reader_of_several_ids(program, own) is not None:
        return ""
    others = {own: name for own, name in names.items() if not dims.get(own)}
    return next(iter([*inputs_of(node, others), *inputs_of(node, names)]), node.name)


def samples_in_words(numbers: Sequence[int], count: int) -> str:
    """``samples 2, 3 of 4``, or how many they are."""
    if len(numbers) > FEWEST:
        return f"{len(numbers)} of {count} samples"
    return f"sample{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))} of {count}"

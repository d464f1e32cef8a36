"""What a benchmark finds: a row for each part of each variant."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..api.optimization import optimization_of
from ..runtime.records import StepRecord
from ..speed.prediction import prediction_of
from .candidates import Candidate
from .lockstep import Generation
from .turn import TransformerTurn
from .variants import COMPILED, EAGER
from .warm_up import WarmedUp

TRANSFORMER, HEAD, WHOLE = "transformer", "head", "whole"


@dataclass(frozen=True)
class Ratio:
    """The median over the repeats, the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, above: Sequence[float], below: Sequence[float]) -> Ratio:
        """``above`` over ``below``, repeat by repeat."""
        ratios = [one / other for one, other in zip(above, below, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True)
class Row:
    """A part of a variant.

    Attributes:
        workload: size, or ``module:function``.
        part: a step method (``encoder``, ``decoder``), ``transformer`` (all step methods), ``head``, or ``whole``.
        variant: its word. refresh: share of tokens that it refreshes in a step, where it is one of a curve.
        steps: decoding steps of its generation. timed_steps: so many of them were timed.
        seconds: of a generation, median over the repeats. estimated_seconds: the same from one step in ``every`` alone,
            for comparison where all were timed.
        speedup_vs_eager, speedup_vs_compiled: time of the original, and of the original under `torch.compile`, over
            its own in the same repeat: median, lowest and highest; None where the other was not run.
        compilations: graphs compiled for its model before the timing, which variants that measure the same share.
            timed_compilations: graphs compiled while it was timed. compile_seconds: of capture and compilation.
        peak_bytes: memory at most in use in a few steps, over that before; None where that cannot be known.
        cache_bytes: of that, the caches of a session; None for the original.
        flops_ratio, rows_ratio: of what the step methods computed over the original's; None where that is not known.
        predicted_speedup: over the original run eagerly, as `Prediction` has it from this machine's rates; None for the
            original, and in another number of decoding steps.
    """

    workload: str
    part: str
    variant: str
    refresh: float | None
    batch: int
    cfg: float | None
    steps: int
    timed_steps: int
    seconds: float
    estimated_seconds: float
    speedup_vs_eager: float | None
    speedup_vs_eager_low: float | None
    speedup_vs_eager_high: float | None
    speedup_vs_compiled: float | None
    speedup_vs_compiled_low: float | None
    speedup_vs_compiled_high: float | None
    compilations: int
    timed_compilations: int
    compile_seconds: float
    peak_bytes: int | None
    cache_bytes: int | None
    flops_ratio: float | None
    rows_ratio: float | None
    predicted_speedup: float | None

    @property
    def label(self) -> str:
        """``ours 10%``."""
        return self.variant if self.refresh is None else f"{self.variant} {100 * self.refresh:g}%"


@dataclass(frozen=True)
class Bench:
    """Rows, and what they depend on.

    Attributes:
        machine: see `machine.machine`. settings: see `Settings`. timed_steps: numbers of the decoding steps at which
            variants without state were timed.
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    timed_steps: tuple[int, ...]
    rows: tuple[Row, ...]

    @property
    def done(self) -> tuple[tuple[int, float | None], ...]:
        """The batches and guidance scales that there are rows of."""
        return tuple(dict.fromkeys((row.batch, row.cfg) for row in self.rows))

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for `json`."""
        return {
            "machine": self.machine,
            "settings": self.settings,
            "timed_steps": list(self.timed_steps),
            "rows": [asdict(row) for row in self.rows],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Bench:
        """The opposite of `to_dict`."""
        names = {own.name for own in fields(Row)}
        rows = tuple(Row(**{name: value for name, value in row.items() if name in names}) for row in values["rows"])
        return cls(dict(values["machine"]), dict(values["settings"]), tuple(values["timed_steps"]), rows)


@dataclass(frozen=True)
class Outcome:
    """What was measured of a candidate.

    Attributes:
        generations: one a repeat. heads: of its number of decoding steps, one a repeat; none without a head.
    """

    candidate: Candidate
    warmed_up: WarmedUp
    generations: tuple[Generation, ...]
    heads: tuple[Generation, ...]

    @property
    def seconds(self) -> dict[str, list[float]]:
        """Of each part, repeat by repeat."""
        return self.by_part([own.seconds for own in self.generations], [own.seconds for own in self.heads])

    @property
    def estimated(self) -> dict[str, list[float]]:
        """The same from sampled steps alone."""
        return self.by_part([own.estimated for own in self.generations], [own.estimated for own in self.heads])

    def by_part(
        self, generations: Sequence[dict[str, float]], heads: Sequence[dict[str, float]]
    ) -> dict[str, list[float]]:
        """Of each part and of parts together, repeat by repeat."""
        methods = {part: [own[part] for own in generations] for part in self.candidate.workload.parts.values()}
        transformer = [sum(own.values()) for own in generations]
        found = {**methods, TRANSFORMER: transformer}
        if heads:
            found[HEAD] = [own[HEAD] for own in heads]
            found[WHOLE] = [one + other for one, other in zip(transformer, found[HEAD], strict=True)]
        return found

    @property
    def turn(self) -> TransformerTurn:
        """The last generation."""
        turn = self.generations[-1].turn
        assert isinstance(turn, TransformerTurn)
        return turn


def rows_of(outcomes: Sequence[Outcome]) -> list[Row]:
    """A row for each part of each outcome."""
    taken = {outcome.candidate.variant.name: outcome.seconds for outcome in outcomes}
    return [
        row for outcome in outcomes for row in outcome_rows(outcome, outcomes, taken.get(EAGER), taken.get(COMPILED))
    ]


def outcome_rows(
    outcome: Outcome,
    outcomes: Sequence[Outcome],
    eager: Mapping[str, list[float]] | None,
    compiled: Mapping[str, list[float]] | None,
) -> Iterable[Row]:
    candidate, warmed_up, turn = outcome.candidate, outcome.warmed_up, outcome.turn
    workload, variant = candidate.workload, candidate.variant
    shares, estimated = shares_of(outcome, outcomes), outcome.estimated
    is_predicted = not variant.is_original and has_steps_of_the_benchmark(candidate)
    predicted = predicted_speedups(turn.records, workload.parts, compiled=variant.compile) if is_predicted else {}
    for part, seconds in outcome.seconds.items():
        vs_eager = None if eager is None else Ratio.of(eager[part], seconds)
        vs_compiled = None if compiled is None else Ratio.of(compiled[part], seconds)
        flops, rows = shares.get(part, (None, None))
        yield Row(
            workload=workload.name,
            part=part,
            variant=variant.name,
            refresh=variant.refresh,
            batch=workload.batch,
            cfg=workload.cfg,
            steps=candidate.count,
            timed_steps=len(candidate.timed),
            seconds=statistics.median(seconds),
            estimated_seconds=statistics.median(estimated[part]),
            **columns("speedup_vs_eager", vs_eager),
            **columns("speedup_vs_compiled", vs_compiled),
            compilations=warmed_up.preparation.compilations,
            timed_compilations=sum(own.turn.compilations for own in (*outcome.generations, *outcome.heads)),
            compile_seconds=warmed_up.preparation.seconds,
            peak_bytes=warmed_up.peak_bytes,
            cache_bytes=turn.cache_bytes,
            flops_ratio=flops,
            rows_ratio=rows,
            predicted_speedup=predicted.get(part),
        )


def columns(name: str, ratio: Ratio | None) -> dict[str, Any]:
    values = (None, None, None) if ratio is None else (ratio.median, ratio.low, ratio.high)
    return dict(zip((name, f"{name}_low", f"{name}_high"), values))


Share = tuple[float | None, float | None]
"""FLOPs and rows over the original's."""


def shares_of(outcome: Outcome, outcomes: Sequence[Outcome]) -> dict[str, Share]:
    """What a candidate's step methods computed over what the original does in the benchmark's decoding steps."""
    candidate = outcome.candidate
    parts = candidate.workload.parts
    plain: dict[str, Share] = dict.fromkeys([*parts.values(), TRANSFORMER], (1.0, 1.0))
    own = plain if candidate.variant.is_original else shares_of_records(outcome.turn.records, parts)
    if has_steps_of_the_benchmark(candidate):
        return own
    candidates = [other.candidate for other in outcomes]
    base = next((other for other in candidates if has_steps_of_the_benchmark(other)), None)
    if base is None:
        return {}
    of_steps = shares_of_steps(candidate, base, candidates)
    return {
        part: (product(flops, of_steps[part][0]), product(rows, of_steps[part][1]))
        for part, (flops, rows) in own.items()
    }


def has_steps_of_the_benchmark(candidate: Candidate) -> bool:
    return candidate.variant.steps is None and not candidate.variant.is_guided_in_part


def product(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one * other


def shares_of_records(records: Sequence[StepRecord], parts: Mapping[str, str]) -> dict[str, Share]:
    """Of what a session computed."""
    return {
        part: (
            sum(record.flops for record in own) / sum(record.original_flops for record in own),
            sum(record.rows for record in own) / sum(record.original_rows for record in own),
        )
        for part, own in by_part(records, parts).items()
    }


def by_part(records: Sequence[StepRecord], parts: Mapping[str, str]) -> dict[str, list[StepRecord]]:
    """Those of each part that has any, and of all."""
    found: dict[str, list[StepRecord]] = {}
    for record in records:
        for part in (parts[record.name], TRANSFORMER):
            found.setdefault(part, []).append(record)
    return found


def predicted_speedups(records: Sequence[StepRecord], parts: Mapping[str, str], *, compiled: bool) -> dict[str, float]:
    """Of what a session computed, over the original run eagerly."""
    known = {program: prediction_of(program, compiled=compiled) for program in {own.program for own in records}}
    return {
        part: sum(known[record.program].original(record.visible) for record in own if not record.again)
        / sum(known[record.program].incremental(record.counts, record.read) for record in own)
        for part, own in by_part(records, parts).items()
    }


def shares_of_steps(candidate: Candidate, base: Candidate, others: Sequence[Candidate]) -> dict[str, Share]:
    """Of the original in other decoding steps than ``base``; FLOPs are known from a transformed model's operators."""
    transformed = next((own.model for own in others if not own.variant.is_original), None)
    counts = {}
    for own in (candidate, base):
        rows = dict.fromkeys(own.workload.parts, 0.0)
        flops = dict.fromkeys(own.workload.parts, 0.0)
        for work in own.workload.steps:
            for call, computed in zip(work.calls, work.rows):
                rows[call.step] += computed
                if transformed is not None:
                    program = optimization_of(transformed).steps[call.step].programs[-1]
                    share_of_samples = work.samples / program.samples
                    flops[call.step] += share_of_samples * program.cost.original(computed // work.samples)
        counts[own] = flops, rows
    (own_flops, own_rows), (base_flops, base_rows) = counts[candidate], counts[base]

    def share(names: Sequence[str]) -> Share:
        flops, rows = (
            [sum(counted[name] for name in names) for counted in pair]
            for pair in ((own_flops, base_flops), (own_rows, base_rows))
        )
        return flops[0] / flops[1] if flops[1] else None, rows[0] / rows[1]

    parts = candidate.workload.parts
    return {**{part: share([name]) for name, part in parts.items()}, TRANSFORMER: share(list(parts))}

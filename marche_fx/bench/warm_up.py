"""Steps that nobody times: they capture, compile and show how much memory a step takes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..refresh import RefreshPolicy, begun_after
from ..speed.clock import Clock
from .candidates import Candidate, PolicyByStep
from .compiler import graphs_compiled
from .resident import measured_peak
from .turn import TransformerTurn
from .workload import Workload


@dataclass
class Preparation:
    """What it took to make a model ready.

    Attributes:
        compilations: graphs compiled. seconds: by which the first steps took longer than the same ones again, for
            capture and compilation.
    """

    compilations: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class WarmedUp:
    """A candidate that is ready.

    Attributes:
        preparation: of its model, which other candidates may share. peak_bytes: see `measured_peak`.
    """

    preparation: Preparation
    peak_bytes: int | None


def warm_up(candidate: Candidate, clock: Clock, known: dict[int, Preparation]) -> WarmedUp:
    """Run a few steps, full and partial, in sessions that are thrown away.

    Args:
        known: by the ``id`` of a model, the preparation of those that are ready; gets the candidate's.
    """
    before = graphs_compiled()
    first = None if id(candidate.model) in known else run_untimed(candidate, clock)
    with measured_peak(candidate.workload.device) as peak:
        again = run_untimed(candidate, clock)
    own = known.setdefault(id(candidate.model), Preparation())
    own.compilations += graphs_compiled() - before
    is_bare = candidate.variant.is_original and not candidate.variant.compile
    if first is not None and not is_bare:
        own.seconds = max(first - again, 0.0)
    return WarmedUp(own, peak.bytes)


def run_untimed(candidate: Candidate, clock: Clock) -> float:
    """A generation of a few steps; return how long it took."""
    began = time.perf_counter()
    with TransformerTurn(candidate, clock, without_warm_up(candidate.policies)) as turn:
        for number in warm_up_steps(candidate.workload):
            turn.step(number)
    return time.perf_counter() - began


def warm_up_steps(workload: Workload) -> Sequence[int]:
    """The first steps and the last: few and many tokens known, all to be computed and few."""
    count = len(workload.steps)
    if not workload.is_cut_anywhere:
        return range(min(count, 4))
    return sorted({0, 1, count - 2, count - 1} & set(range(count)))


def without_warm_up(policies: Mapping[str, RefreshPolicy]) -> PolicyByStep:
    """The same policies with a partial step right after the first; methods that share one still do."""
    changed = {id(policy): begun_after(policy, 0) for policy in policies.values()}
    return {name: changed[id(policy)] for name, policy in policies.items()}

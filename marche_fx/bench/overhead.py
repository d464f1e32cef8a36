"""What a step costs beside its arithmetic: operators dispatched, compiled calls, kernels, waits, allocations.

All but the microseconds are counts, which are the same on any machine.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch._inductor import config as inductor
from torch.profiler import ProfilerActivity, profile

from ..models import MAR
from ..models.presets import SIZES
from ..runtime.pending import PendingStep
from ..speed.clock import Clock, clock_for
from .breakdown import in_range
from .candidates import Candidate, make_candidates
from .compiler import compiling
from .settings import Settings
from .turn import TransformerTurn
from .variants import Variant
from .warm_up import run_untimed, without_warm_up
from .workload import Workload, mar_workload

COMPILED_CALL = "## Call CompiledFxGraph"
"""How a profile shows a call of what `torch.compile` made of a graph."""

FUSED = ("cpp_fused_", "triton_")
"""What is in the names of the kernels that Inductor writes."""

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")

HOST_READS = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "_unique2", "resolve_neg")
"""Operators whose result the host needs, so that it would wait for a GPU; ``tolist`` shows as the last one."""

COUNTED = ("operators", "compiled_calls", "inside", "kernels", "host_reads", "launches", "waits")

RUN = "marche_fx: run"
"""A range around what a read of a late result makes run."""

ALLOCATION = "[memory]"

NARROW = 8
"""Width of a model that computes next to nothing."""

TIMED = 9
"""Steps of which the median is taken."""


@dataclass(frozen=True)
class Overhead:
    """Counts of one decoding step, in all of its step methods.

    Attributes:
        variant: what was counted. step: its number. rows: computed in it, of all samples; None for the original.
        operators: dispatched from Python or from one another's outside, beside compiled code.
        compiled_calls: of graphs that `torch.compile` made. inside: operators that these dispatch.
        kernels: what compiled code runs: those operators, and the kernels that Inductor wrote.
        host_reads: operators whose result the host needs. allocations: of memory.
        launches: of kernels, or of graphs of them. waits: for the device. Both are 0 on the processor.
        microseconds: of a step of the same model in width `NARROW`; None where it was not timed.
    """

    variant: str
    step: int
    rows: int | None
    operators: int
    compiled_calls: int
    inside: int
    kernels: int
    host_reads: int
    allocations: int
    launches: int
    waits: int
    microseconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def measure_overhead(
    workload: Workload, narrow: Workload | None, variants: Sequence[Variant], settings: Settings
) -> Iterator[Overhead]:
    """Count in a step of each variant, and time it in the same model of width `NARROW`, where there is one."""
    clock = clock_for(workload.device, cpu_time=settings.cpu_time)
    with compiling(), naming_kernels(), naming_runs():
        candidates = make_candidates(workload, variants, settings)
        narrow_ones = [None] * len(variants) if narrow is None else make_candidates(narrow, variants, settings)
        for candidate, other in zip(candidates, narrow_ones, strict=True):
            found = count_overhead(candidate, clock)
            yield found if other is None else replace(found, microseconds=1e6 * seconds_of_a_step(other, clock))


@contextmanager
def naming_kernels() -> Iterator[None]:
    """What Inductor compiles inside shows its kernels in a profile."""
    with inductor.patch({"cpp.enable_kernel_profile": True}):
        yield


@contextmanager
def naming_runs() -> Iterator[None]:
    """What a step of ours runs is in a range of its own, whoever asked for it."""
    run = PendingStep.run
    # On the class, for steps make their own objects; mypy takes methods for constants.
    PendingStep.run = in_range(run, RUN)  # type: ignore[method-assign]
    try:
        yield
    finally:
        PendingStep.run = run  # type: ignore[method-assign]


def count_overhead(candidate: Candidate, clock: Clock) -> Overhead:
    """Count in a step in the middle of a generation, behind steps that are not counted."""
    run_untimed(candidate, clock)
    middle = middle_of(candidate)
    with TransformerTurn(candidate, clock, without_warm_up(candidate.policies)) as turn:
        for number in range(max(middle - 3, 0), middle):
            turn.step(number)
        counted = len(turn.session.records) if turn.session is not None else 0
        with profile(activities=activities(candidate.workload.device), profile_memory=True) as found:
            work = candidate.workload.steps[middle]
            for place, call in enumerate(work.calls, work.first):
                turn.run(turn.called, place, call)
        # What settles the step is not part of it.
        clock.settle()
        rows = None if turn.session is None else sum(own.rows for own in turn.session.records[counted:])
    return Overhead(candidate.variant.label, middle, rows, **counts(found.events() or ()), allocations=allocated(found))


def seconds_of_a_step(candidate: Candidate, clock: Clock) -> float:
    """Median over steps from the middle of a generation on."""
    run_untimed(candidate, clock)
    middle = middle_of(candidate)
    numbers = range(max(middle - 3, 0), min(middle + TIMED, candidate.count))
    with TransformerTurn(candidate, clock, without_warm_up(candidate.policies)) as turn:
        taken = {number: sum(turn.step(number).values()) for number in numbers}
    return statistics.median(own for number, own in taken.items() if number >= middle)


def middle_of(candidate: Candidate) -> int:
    return candidate.count // 2 if candidate.workload.is_cut_anywhere else min(3, candidate.count - 1)


def narrow_workload(size: str, like: Workload) -> Workload:
    """The steps of a MAR of this size but for its width, for as many images at the same guidance scale."""
    widths = {f"{half}_embed_dim": NARROW for half in ("encoder", "decoder")}
    heads = {f"{half}_num_heads": 2 for half in ("encoder", "decoder")}
    with like.device:
        model: MAR = SIZES[size](**widths, **heads, diffloss_d=1, diffloss_w=NARROW).eval()
    assert like.cfg is not None
    return mar_workload(model, like.batch, like.cfg, len(like.steps), name=f"{size}, width {NARROW}")


def activities(device: torch.device) -> list[ProfilerActivity]:
    on_device = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return [ProfilerActivity.CPU, *on_device]


def allocated(found: Any) -> int:
    """How often memory was taken in a profile."""
    events = found.profiler.kineto_results.events()
    return sum(event.name() == ALLOCATION and event.nbytes() > 0 for event in events)


def counts(events: Iterable[Any]) -> dict[str, int]:
    """The counts of `Overhead` from the events of a profile, but for the allocations."""
    found = Counter(dict.fromkeys(COUNTED, 0))
    for event in events:
        above = [own.name for own in ancestors(event)]
        is_inside = any(own.startswith(COMPILED_CALL) for own in above)
        # What a read of a late result makes run is no part of the operator that reads.
        above = above[: next((place for place, own in enumerate(above) if own == RUN), len(above))]
        if event.name.startswith(COMPILED_CALL):
            found["compiled_calls"] += 1
        elif is_operator(event.name) and not any(map(is_operator, above)):
            found["inside" if is_inside else "operators"] += 1
            found["kernels"] += is_inside
        elif is_inside and any(own in event.name for own in FUSED):
            found["kernels"] += 1
        elif event.name.startswith(LAUNCHES):
            found["launches"] += 1
        elif event.name.startswith(WAITS):
            found["waits"] += 1
        found["host_reads"] += is_host_read(event.name) and not any(map(is_host_read, above))
    return dict(found)


def ancestors(event: Any) -> Iterator[Any]:
    while event.cpu_parent is not None:
        event = event.cpu_parent
        yield event


def is_operator(name: str) -> bool:
    return name.startswith(("aten::", "marche_fx::", "mkl::", "mkldnn::", "torch_attn::"))


def is_host_read(name: str) -> bool:
    return name.removeprefix("aten::") in HOST_READS

"""What a step costs beside its arithmetic: operators dispatched, compiled calls, kernels launched, waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from ..speed.clock import Clock
from .candidates import Candidate
from .turn import TransformerTurn
from .warm_up import run_untimed, without_warm_up

COMPILED_CALL = "## Call CompiledFxGraph"
"""How a profile shows a call of what `torch.compile` made of a graph."""

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")


@dataclass(frozen=True)
class Overhead:
    """Counts of one decoding step, in all of its step methods.

    Attributes:
        variant: what was counted. step: its number. rows: computed in it, of all samples; None for the original.
        operators: dispatched from Python or from one another's outside, beside compiled code.
        compiled_calls: of graphs that `torch.compile` made. inside: operators that these dispatch.
        launches: of kernels, or of graphs of them. waits: for the device. Both are 0 on the processor.
    """

    variant: str
    step: int
    rows: int | None
    operators: int
    compiled_calls: int
    inside: int
    launches: int
    waits: int

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def count_overhead(candidate: Candidate, clock: Clock) -> Overhead:
    """Count in a step in the middle of a generation, behind steps that are not counted."""
    run_untimed(candidate, clock)
    middle = candidate.count // 2 if candidate.workload.is_cut_anywhere else min(3, candidate.count - 1)
    with TransformerTurn(candidate, clock, without_warm_up(candidate.policies)) as turn:
        for number in range(max(middle - 3, 0), middle):
            turn.step(number)
        counted = len(turn.session.records) if turn.session is not None else 0
        with profile(activities=activities(candidate.workload.device)) as found:
            work = candidate.workload.steps[middle]
            for place, call in enumerate(work.calls, work.first):
                turn.run(turn.called, place, call)
        # What settles the step is not part of it.
        clock.settle()
        rows = None if turn.session is None else sum(own.rows for own in turn.session.records[counted:])
    return Overhead(candidate.variant.label, middle, rows, **counts(found.events() or ()))


def activities(device: torch.device) -> list[ProfilerActivity]:
    on_device = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return [ProfilerActivity.CPU, *on_device]


def counts(events: Iterable[Any]) -> dict[str, int]:
    """The counts of `Overhead` from the events of a profile."""
    found = Counter({"operators": 0, "compiled_calls": 0, "inside": 0, "launches": 0, "waits": 0})
    for event in events:
        above = list(ancestors(event))
        if event.name.startswith(COMPILED_CALL):
            found["compiled_calls"] += 1
        elif is_operator(event.name) and not any(is_operator(own.name) for own in above):
            is_inside = any(own.name.startswith(COMPILED_CALL) for own in above)
            found["inside" if is_inside else "operators"] += 1
        elif event.name.startswith(LAUNCHES):
            found["launches"] += 1
        elif event.name.startswith(WAITS):
            found["waits"] += 1
    return dict(found)


def ancestors(event: Any) -> Iterator[Any]:
    while event.cpu_parent is not None:
        event = event.cpu_parent
        yield event


def is_operator(name: str) -> bool:
    return name.startswith(("aten::", "marche_fx::", "mkldnn::", "torch_attn::"))

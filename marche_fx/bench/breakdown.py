"""Where the time of a step goes: profiled steps of a transformed model, by what they do."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from ..api.optimization import optimization_of
from ..errors import ArgumentError
from ..passes.graph.operands import operands, shape_of
from ..runtime.program import Program
from ..runtime.state import StepState
from ..runtime.token_history import TokenHistory
from ..speed.clock import Clock
from .candidates import Candidate
from .turn import TransformerTurn
from .warm_up import run_untimed, without_warm_up

PROLOGUE, CHOICE, REGION, EPILOGUE = "prologue", "choice of rows", "region", "epilogue"

RANGES: dict[str, tuple[tuple[type, str], ...]] = {
    PROLOGUE: ((StepState, "begin"),),
    CHOICE: (
        (StepState, "changed"),
        (StepState, "input_drift"),
        (StepState, "choose"),
        (TokenHistory, "choose"),
        (TokenHistory, "leave"),
    ),
    REGION: ((StepState, "compute"),),
    EPILOGUE: ((StepState, "results"),),
}
"""What runs in each part of a step."""

GATHER, CACHE, ATTENTION, MLP = "gather", "cache update", "attention", "MLP"
PROJECTIONS, POINTWISE, PYTHON, AROUND = "projections", "norms, sums, ...", "fused, Python", "Python around"

OPERATORS = {
    GATHER: ("index", "gather", "index_select", "take_along_dim"),
    CACHE: ("index_put", "index_put_", "_index_put_impl_", "index_copy_", "scatter", "scatter_", "copy_"),
    ATTENTION: ("softmax", "_softmax", "bmm", "baddbmm", "einsum"),
}
"""Operators by what they do inside of the region; fused attention is told by its name, linears by their weights."""

FUSED_ATTENTION = ("scaled_dot_product", "_scaled_dot_product")

LINEARS = {"linear": 1, "mm": 1, "matmul": 1, "addmm": 2, "_mkl_linear": 1, "_linear_pointwise": 1}
"""Products, each with which operand is the weight."""

PREFIX = "marche_fx: "


@dataclass(frozen=True)
class Breakdown:
    """Mean milliseconds of a partial step.

    Attributes:
        variant: what was profiled. steps: numbers of the decoding steps. rows: active rows of the last, by step method.
        milliseconds: by part of the model (``encoder``, ...), then by what is done, in the order of a step.
        unprofiled: of a whole step without the profiler, which makes small operators look more expensive.
    """

    variant: str
    steps: tuple[int, ...]
    rows: dict[str, int]
    milliseconds: dict[str, dict[str, float]]
    unprofiled: float

    @property
    def profiled(self) -> float:
        """Milliseconds of a step under the profiler."""
        return sum(sum(spent.values()) for spent in self.milliseconds.values())

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**vars(self), "steps": list(self.steps)}


def break_down(
    candidate: Candidate, clock: Clock, write_trace: Callable[[Any], None] = lambda _: None, count: int = 5
) -> Breakdown:
    """Profile the partial steps in the middle of a generation, of which the first ones run in full.

    Args:
        write_trace: gets the `torch.profiler.profile`.

    Raises:
        ArgumentError: the generation is too short to have steps in the middle, or the original was given.
    """
    if candidate.variant.is_original:
        raise ArgumentError(f"{candidate.variant.label} has no parts to profile; profile a variant of marche_fx")
    total = candidate.count
    if total < 3:
        raise ArgumentError(f"a profile needs at least 3 decoding steps, got {total}")
    first = 0 if not candidate.workload.is_cut_anywhere else max(total // 2 - 1, 0)
    before, steps = range(first, first + 2), tuple(range(first + 2, min(first + 2 + count, total)))
    run_untimed(candidate, clock)
    policies = without_warm_up(candidate.policies)
    activities = [ProfilerActivity.CPU]
    if candidate.workload.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    unprofiled = run_plain(candidate, clock, before, steps)
    with TransformerTurn(candidate, clock, policies) as turn, named_ranges():
        for number in before:
            turn.step(number)
        with profile(activities=activities, record_shapes=True) as found:
            for number in steps:
                work = candidate.workload.steps[number]
                for place, call in enumerate(work.calls, work.first):
                    with record_function(PREFIX + candidate.workload.parts[call.step]):
                        turn.run(turn.called, place, call)
    write_trace(found)
    spent = spent_by_part(found.events(), mlp_weights(candidate))
    per_step = {
        part: {what: own / len(steps) / 1000 for what, own in spent.get(PREFIX + part, {}).items()}
        for part in candidate.workload.parts.values()
    }
    rows = {candidate.workload.parts[record.name]: record.rows for record in turn.records}
    return Breakdown(candidate.variant.label, steps, rows, per_step, 1000 * unprofiled)


def run_plain(candidate: Candidate, clock: Clock, before: Sequence[int], steps: Sequence[int]) -> float:
    """Mean seconds of the steps without a profiler."""
    with TransformerTurn(candidate, clock, without_warm_up(candidate.policies)) as turn:
        for number in before:
            turn.step(number)
        began = time.perf_counter()
        for number in steps:
            turn.step(number)
        return (time.perf_counter() - began) / len(steps)


@contextmanager
def named_ranges() -> Iterator[None]:
    """The methods of `RANGES` show in a profile under the name of what they do."""
    originals = [(kind, name, getattr(kind, name)) for methods in RANGES.values() for kind, name in methods]
    try:
        for what, methods in RANGES.items():
            for kind, name in methods:
                setattr(kind, name, in_range(getattr(kind, name), PREFIX + what))
        yield
    finally:
        for kind, name, method in originals:
            setattr(kind, name, method)


def in_range(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with record_function(name):
            return method(*args, **kwargs)

    return call


Shapes = set[tuple[int, ...]]


def mlp_weights(candidate: Candidate) -> Shapes:
    """The shapes of the weights of every MLP's linears, as a linear and as a product take them."""
    found: Shapes = set()
    for step in optimization_of(candidate.model).steps.values():
        for program in step.programs:
            found |= weight_shapes(program)
    return found | {shape[::-1] for shape in found}


def weight_shapes(program: Program) -> Shapes:
    linears = [node for mlp in program.plan.mlps for node in (*mlp.up, mlp.down)]
    weights = [operands(node)[1] for node in linears]
    return {tuple(int(size) for size in shape_of(weight)) for weight in weights if weight is not None}


def spent_by_part(events: Sequence[FunctionEvent], mlps: Shapes) -> dict[str, dict[str, float]]:
    """Microseconds by the name of an outermost range, then by what is done."""
    found: dict[str, dict[str, float]] = {}
    ranges = {PREFIX + what for what in RANGES}
    for event in events:
        if event.name.startswith(PREFIX) and event.name not in ranges:
            spent = found.setdefault(event.name, dict.fromkeys(ORDER, 0.0))
            add_step(event, mlps, spent)
    return found


ORDER = (
    *(PROLOGUE, CHOICE, GATHER, PROJECTIONS, ATTENTION, CACHE, MLP),
    *(POINTWISE, PYTHON, EPILOGUE, AROUND),
)
"""Of what is done, in a table."""


def add_step(event: FunctionEvent, mlps: Shapes, spent: dict[str, float]) -> None:
    """Add what a call of a step method took: parts of a step where it has ranges, the rest around them."""
    rest = event.cpu_time_total
    for own in nested_ranges(event):
        what = own.name.removeprefix(PREFIX)
        rest -= own.cpu_time_total
        if what == REGION:
            add_region(own, mlps, spent)
        else:
            spent[what] += own.cpu_time_total
    spent[AROUND] += max(rest, 0.0)


def nested_ranges(event: FunctionEvent) -> Iterator[FunctionEvent]:
    """The outermost ranges inside of ``event``."""
    for child in event.cpu_children:
        if child.name.startswith(PREFIX):
            yield child
        else:
            yield from nested_ranges(child)


def add_region(event: FunctionEvent, mlps: Shapes, spent: dict[str, float]) -> None:
    """Add each operator of the region, and the rest: kernels that `torch.compile` fused, and Python."""
    spent[PYTHON] += event.self_cpu_time_total
    for child in event.cpu_children:
        if "::" in child.name:
            spent[kind_of(child, mlps)] += child.cpu_time_total
        else:
            add_region(child, mlps, spent)


def kind_of(event: FunctionEvent, mlps: Shapes) -> str:
    """What an operator of the region does."""
    name = event.name.rpartition("::")[2]
    for kind, names in OPERATORS.items():
        if name in names or (kind == ATTENTION and name.startswith(FUSED_ATTENTION)):
            return kind
    if name in LINEARS:
        weight: Any = event.input_shapes[LINEARS[name]]
        # A product of activations alone is attention that a policy measures.
        return ATTENTION if len(weight) != 2 else MLP if tuple(weight) in mlps else PROJECTIONS
    return POINTWISE

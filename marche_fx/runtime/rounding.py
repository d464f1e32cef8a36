"""What caches of lower precision cost: rows of a first step, computed again beside those that are read rounded."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import ops
from ..errors import ArgumentError
from ..refresh import Refresh
from .choose import ActiveStreams
from .method import StepMethod
from .program import Program, Values
from .state import StepState


def loss_by_rounding(method: StepMethod, state: StepState, values: Values) -> float | None:
    """How far results of a few rows move where all others are read rounded: the most, over a row's norm.

    None where nothing is rounded, or a step has so few tokens that all would run. The caches are copied for it.

    Args:
        state: just after a step of all tokens. values: of that step.

    Raises:
        ArgumentError: cached rows are beyond what the caches can hold.
    """
    program = state.program
    if not program.rounds:
        return None
    nothing = torch.zeros(program.shape, dtype=torch.bool, device=state.caches[0].device)
    active = state.choose(values, nothing, nothing, Refresh(0))
    if active.complete:
        return None
    beside = StepState(program)
    beside.caches = [cache.clone() for cache in state.caches]
    beside.compute(values, active, torch.ones_like(nothing))
    moved = [
        distance(*(rows_of(program, active, number, own.caches) for own in (state, beside)))
        for number, spec in enumerate(program.split.caches)
        if spec.role == "result" and spec.dtype.is_floating_point
    ]
    found = float(torch.stack(moved).max()) if moved else None
    if found is not None and not found < torch.inf:
        (dtype,) = {spec.dtype for spec in program.split.caches if spec.rounded_to is not None}
        raise ArgumentError(
            f"cache_dtype={dtype} cannot hold what {method} caches: rows computed beside rounded ones are not "
            "finite. Take torch.bfloat16, which has the range of float32"
        )
    return found


def rows_of(program: Program, active: ActiveStreams, number: int, caches: list[Tensor]) -> Tensor:
    """The active rows of a cache: ``[B, A, F]``."""
    spec, lengths = program.split.caches[number], program.plan.axes.lengths
    streams = program.plan.region.rows[spec.value].streams
    positions = ops.join_positions(
        [active.streams[own].positions for own in streams], [lengths[own] for own in streams]
    )
    samples = torch.arange(len(positions), device=positions.device)[:, None]
    dims = spec.layout.batch_dim, spec.layout.token_dim
    return ops.as_rows(ops.gather_active(caches[number], samples, positions, *dims), *dims)


def distance(exact: Tensor, rounded: Tensor) -> Tensor:
    """The largest ``|rounded - exact| / |exact|`` of any row ``[B, A, F]``; equal ones, as -inf, do not count."""
    is_same = (exact == rounded) | (exact.isnan() & rounded.isnan())
    moved = (rounded - exact).masked_fill(is_same, 0.0).float()
    norm = torch.linalg.vector_norm(exact.masked_fill(~exact.isfinite(), 0.0).float(), dim=-1)
    return (torch.linalg.vector_norm(moved, dim=-1) / norm.clamp(min=1e-12)).amax()

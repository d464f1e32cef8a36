"""Watch a session's cached rows: compare some with exact ones now and then, and recompute all when they are off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import check_count, check_positive
from .program import Program


@dataclass(frozen=True)
class Monitor:
    """When to compare cached rows with the original's, and what to do about it.

    A check runs the original step once more, which costs as much as the original, and waits for the device. A step
    method whose cached rows are off by more than ``max_drift`` recomputes all tokens at once.

    Args:
        every: decoding steps from check to check. rows: cached rows of each sample to compare, chosen at random.
        max_drift: largest norm of the difference over the norm of the exact rows.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    every: int = 8
    rows: int = 16
    max_drift: float = 0.2

    def __post_init__(self) -> None:
        check_count("every", self.every, least=1)
        check_count("rows", self.rows, least=1)
        check_positive("max_drift", self.max_drift)

    def is_due(self, step: int) -> bool:
        """Whether the decoding step of this number is checked; the first is exact in any case."""
        return step > 0 and step % self.every == 0


def drift_of_cached(
    monitor: Monitor, program: Program, leaves: Sequence[Any], exact: Sequence[Any], computed: Tensor, step: int
) -> float:
    """How far some cached rows of the results are from the exact ones: norm of the difference over that of the exact.

    Args:
        leaves, exact: results of the step, cached and exact.
        computed: bool ``[B, N]``, the tokens that the step computed, which are not cached ones.
        step: number of the decoding step, from which the choice of rows is drawn.
    """
    generator = torch.Generator(computed.device).manual_seed(step)
    score = torch.rand(computed.shape, generator=generator, device=computed.device, dtype=torch.float32)
    score = score.masked_fill(computed, -1.0)
    wrong = torch.zeros((), device=computed.device, dtype=torch.float32)
    whole = torch.zeros((), device=computed.device, dtype=torch.float32)
    for own, other, rows in zip(leaves, exact, program.row_outputs, strict=True):
        if not isinstance(own, Tensor) or not own.is_floating_point():
            continue
        now, then = own.float(), other.float()
        if rows is not None and rows.dims is not None:
            now, then = (value.movedim(rows.dims, (0, 1)) for value in (now, then))
            of_result = score[:, rows.offset : rows.offset + rows.count]
            chosen = of_result.topk(min(monitor.rows, rows.count), 1)
            samples = torch.arange(len(now), device=now.device)[:, None]
            # Where fewer rows are cached, the others do not count.
            is_cached = (chosen.values >= 0).view(*chosen.values.shape, *[1] * (now.ndim - 2))
            now, then = (value[samples, chosen.indices] * is_cached for value in (now, then))
        wrong = wrong + (now - then).square().sum()
        whole = whole + then.square().sum()
    return float((wrong / whole.clamp(min=1e-30)).sqrt())

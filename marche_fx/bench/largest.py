"""How many images at once take no more memory than the original's largest batch."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from .rows import TRANSFORMER, Bench
from .variants import EAGER


@dataclass(frozen=True)
class LargestBatch:
    """The largest batch of a variant within the memory of the original's.

    Attributes:
        original: batch of the original, the largest that was measured. bytes: that it needs at most, weights aside.
        batch: of the variant, between measured ones on the straight line; 0 where the smallest needs more. Where all
            measured batches fit, it is the largest of them.
    """

    workload: str
    cfg: float | None
    variant: str
    original: int
    bytes: int
    batch: int


def largest_batches(bench: Bench) -> Iterator[LargestBatch]:
    """Of every variant that was measured at several batches, beside the original."""
    peaks: dict[tuple[str, float | None], dict[str, dict[int, int]]] = {}
    for row in bench.rows:
        if row.part == TRANSFORMER and row.peak_bytes is not None:
            own = peaks.setdefault((row.workload, row.cfg), {}).setdefault(row.label, {})
            own[row.batch] = row.peak_bytes
    for (workload, cfg), variants in peaks.items():
        original = variants.get(EAGER, {})
        if len(original) > 1:
            most = max(original)
            for name, measured in variants.items():
                batch = largest_within(original[most], measured)
                yield LargestBatch(workload, cfg, name, most, original[most], batch)


def largest_within(limit: int, measured: dict[int, int]) -> int:
    """The largest batch that needs at most ``limit`` bytes, of those from the smallest to the largest measured.

    Args:
        measured: bytes by batch. A larger batch never needs less: where a figure says so, its smaller ones count.
    """
    batches = sorted(measured)
    needed = [max(measured[other] for other in batches if other <= own) for own in batches]
    below = bisect_right(needed, limit)
    if below == 0:
        return 0
    if below == len(batches):
        return batches[-1]
    share = (limit - needed[below - 1]) / (needed[below] - needed[below - 1])
    return int(batches[below - 1] + share * (batches[below] - batches[below - 1]))

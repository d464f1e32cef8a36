"""Active rows padded to a bucket, so that few graphs serve all steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

SMALLEST = 8
"""Rows of the smallest bucket. Those above are this times 1, 2, 3, 4, 6, 8, 12, ..., so a third is padding at most."""


def bucket(count: int, most: int) -> int:
    """The smallest bucket of so many rows; ``most`` is one too."""
    size = SMALLEST
    while size < count:
        between = size + size // 2
        # One and a half times the smallest would be no multiple of it.
        size = between if count <= between and between % SMALLEST == 0 else 2 * size
    return min(size, most)


class Sizes(NamedTuple):
    """How many rows a graph is for, stream by stream.

    Attributes:
        active: rows A that are computed. asked: rows Q among them that are told from others. skips_unread: whether
            results are computed of these alone.
    """

    active: tuple[int, ...]
    asked: tuple[int, ...]
    skips_unread: bool


@dataclass(frozen=True)
class ActiveRows:
    """What a step is told of its active tokens, stream by stream.

    Attributes:
        positions: ``[B, A]`` int64 each. read: ``[B, R]``, numbers of those whose results are computed. rows:
            ``[B, Q]``, numbers of those that hold the queried ones. queried: bool ``[B, Q]``, which are.
        skips_unread: whether ``read`` is ``rows``; otherwise it is all numbers.
    """

    positions: Sequence[Tensor]
    read: Sequence[Tensor]
    rows: Sequence[Tensor]
    queried: Sequence[Tensor]
    skips_unread: bool

    @property
    def all(self) -> tuple[Tensor, ...]:
        """In the order in which a rewritten step takes them."""
        return (*self.positions, *self.read, *self.rows, *self.queried)

    @property
    def count(self) -> int:
        """Rows A of a sample, of all streams."""
        return sum(own.shape[1] for own in self.positions)

    def sizes(self, lengths: Sequence[int]) -> Sizes:
        """The buckets of a graph for these rows; ``lengths`` are the tokens of each stream."""
        active = tuple(bucket(own.shape[1], length) for own, length in zip(self.positions, lengths))
        asked = tuple(own.shape[1] for own in self.rows)
        if len(lengths) == 1:
            # Whether any token is queried is asked of streams alone and joined, which padding would have to know.
            asked = (min(bucket(asked[0], lengths[0]), active[0]),)
        return Sizes(active, asked, self.skips_unread)


def blank_rows(sizes: Sizes, samples: int, device: torch.device) -> ActiveRows:
    """Memory for rows of these sizes, to be filled by `fill`."""

    def numbers(count: int) -> Tensor:
        return torch.zeros(samples, count, dtype=torch.int64, device=device)

    rows = [numbers(count) for count in sizes.asked]
    every = [torch.arange(count, device=device).expand(samples, count).contiguous() for count in sizes.active]
    return ActiveRows(
        positions=[numbers(count) for count in sizes.active],
        read=rows if sizes.skips_unread else every,
        rows=rows,
        queried=[own.bool() for own in rows],
        skips_unread=sizes.skips_unread,
    )


def fill(blank: ActiveRows, own: ActiveRows) -> None:
    """Copy ``own`` into rows that are as many or more: behind them the last active row is computed again.

    So every row that is written is written with what it would be written with anyway, and nothing that is measured
    counts one of them. Where none is queried all rows count; then those that are no padding are queried.
    """
    for into, rows in zip((*blank.positions, *blank.rows), (*own.positions, *own.rows)):
        count = rows.shape[1]
        into[:, :count].copy_(rows)
        if count < into.shape[1]:
            into[:, count:].copy_(rows[:, -1:])
    for into, flags in zip(blank.queried, own.queried):
        count = flags.shape[1]
        if count == into.shape[1]:
            into.copy_(flags)
        else:
            into[:, :count].copy_(flags | ~flags.any())
            into[:, count:].zero_()

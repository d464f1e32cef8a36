"""Rows that a session keeps when its calls go on with another number of tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..passes.rewrite.lengths import Unwatched


@dataclass(frozen=True)
class Kept:
    """The tokens that a call has in common with one of another length: the first ones of every stream.

    Attributes:
        before, after: tokens of each stream.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(map(min, self.before, self.after))

    def rows(self, own: Tensor, dim: int = 1, streams: Sequence[int] | None = None, fill: Any = 0) -> Tensor:
        """A copy of rows along ``dim``, of all streams or of some, with ``fill`` in place of those that are new."""
        numbers = range(len(self.before)) if streams is None else streams
        found = []
        for number, part in zip(numbers, own.split([self.before[number] for number in numbers], dim)):
            shape = [*part.shape[:dim], self.after[number], *part.shape[dim + 1 :]]
            whole = torch.full(shape, fill, dtype=own.dtype, device=own.device)
            whole.narrow(dim, 0, self.counts[number]).copy_(part.narrow(dim, 0, self.counts[number]))
            found.append(whole)
        return found[0] if len(found) == 1 else torch.cat(found, dim)

    def streams_from(self, start: int, count: int) -> list[int]:
        """The streams that begin among ``count`` tokens of before from a position on."""
        starts = itertools.accumulate(self.before, initial=0)
        return [number for number, own in zip(range(len(self.before)), starts) if start <= own < start + count]

    def differing(self, places: tuple[Unwatched, Unwatched], before: Any, after: Any) -> Tensor:
        """Tokens for which a value is another than it was: bool ``[B, N]`` of after, or what broadcasts to it.

        A value that is not read row by row counts for all tokens. New tokens may be among those that differ.

        Args:
            places: of the value, before and after.
        """
        if not isinstance(before, Tensor) or not isinstance(after, Tensor):
            return torch.tensor(before != after)
        own, other = places
        before, after = before.reshape(own.shape), after.reshape(other.shape)
        if own.row_dim is None:
            for dim, streams in enumerate(own.tokens):
                before, after = self.common(before, after, dim, streams)
            return (before != after).any()
        differs = self.rows(before, own.row_dim, own.tokens[own.row_dim]) != after
        leading = [dim for dim in (own.batch_dim, own.row_dim) if dim is not None]
        rows = differs.movedim(leading, list(range(len(leading))))
        rows = rows.reshape(*rows.shape[: len(leading)], -1).any(-1)
        rows = rows if own.batch_dim is not None else rows[None]
        start = sum(self.after[: own.tokens[own.row_dim][0]])
        return torch.nn.functional.pad(rows, (start, sum(self.after) - start - rows.shape[1]))

    def common(self, before: Tensor, after: Tensor, dim: int, streams: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Of two values the parts along ``dim`` that are the same tokens, or the first ones of anything else."""
        if not streams:
            count = min(before.shape[dim], after.shape[dim])
            return before.narrow(dim, 0, count), after.narrow(dim, 0, count)
        cut = []
        for own, lengths in ((before, self.before), (after, self.after)):
            parts = own.split([lengths[number] for number in streams], dim)
            cut.append(torch.cat([part.narrow(dim, 0, self.counts[n]) for n, part in zip(streams, parts)], dim))
        return cut[0], cut[1]

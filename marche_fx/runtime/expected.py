"""Which rows a loop is about to read, beside those that its first read of a result names."""

from __future__ import annotations

import torch
from torch import Tensor


class ExpectedReads:
    """What one call read beside the rows that its first read named, expected of the next call too.

    A loop that reads row by row, sample by sample or half by half does so in every call, and the step would run for
    each read; likewise where the first one is of all rows, as a check is of what the loop draws from. Masked tokens
    only become fewer, so the rows of one call are those of the next and a few more.
    """

    def __init__(self) -> None:
        self.first: Tensor | None = None
        """bool ``[B, N]``, rows that the first read of the last call named; none of them where it was of all."""
        self.read: Tensor | None = None
        """bool ``[B, N]``, rows that any read of it named, where there was another one."""
        self.before: Tensor | None = None
        """bool ``[B, N]``, the same of the call before that."""

    def take_in(self, first: Tensor | None, queried: Tensor) -> None:
        """A call's first read named the rows ``first [B, N]``, or none as it was of all; another ``queried [B, N]``."""
        self.first = torch.zeros_like(queried) if first is None else first
        self.read = (self.first if self.read is None else self.read) | queried

    def beside(self, queried: Tensor | None) -> Tensor | None:
        """The rows ``[B, N]`` that are expected beside the ``queried``, which the next call's first read names, if any.

        Where each half was read by the rows of the other one, these; else the rows of the last call, unless most were
        not read in the one before. Waits for no device.

        Args:
            queried: bool ``[B, N]``; None where the read is of all rows.
        """
        first, read, before = self.first, self.read, self.before
        self.first, self.read, self.before = None, None, read
        if first is None or read is None:
            return None
        later = read & ~first
        recurs = later.any() if before is None else later.any() & (2 * (read & before).sum() >= read.sum())
        expected = read & recurs
        if queried is not None and len(queried) % 2 == 0:
            half = len(queried) // 2
            is_by_half = ((later == first.roll(half, 0)).all(1) & ~(later.any(1) & first.any(1))).all()
            expected = torch.where(is_by_half, queried.roll(half, 0), expected)
        return expected

    def forget(self) -> None:
        self.first = self.read = self.before = None

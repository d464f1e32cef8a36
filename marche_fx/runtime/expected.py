"""Which rows a loop is about to read, beside those that its first read of a result names."""

from __future__ import annotations

import torch
from torch import Tensor


class ExpectedReads:
    """What one call read of samples of which its first read named nothing, expected of the next call too.

    A loop that reads the halves of a guided batch one after the other does so in every call, and the step would run for
    each. All samples have equally many tokens computed anyway, so those of which nothing is named yet can have the rows
    that are likely to be read of them.
    """

    def __init__(self) -> None:
        self.first: Tensor | None = None
        """bool ``[B, N]``, rows that the first read of the last call named."""
        self.later: Tensor | None = None
        """bool ``[B, N]``, those that other reads of it named, of other samples."""

    def take_in(self, first: Tensor, queried: Tensor) -> None:
        """A call's first read named the rows ``first [B, N]``, and another one ``queried [B, N]``."""
        later = queried & ~first.any(1, keepdim=True)
        self.first, self.later = first, later if self.later is None else self.later | later

    def beside(self, queried: Tensor | None) -> Tensor | None:
        """The rows that the first read of the next call names, and those that are expected beside them.

        Where each half was read by the rows of the other one, these; else the rows of the last call. Waits for no
        device.
        """
        first, later = self.first, self.later
        self.forget()
        if queried is None or first is None or later is None:
            return queried
        if len(queried) % 2 == 0:
            half = len(queried) // 2
            later = torch.where((later == first.roll(half, 0)).all(), queried.roll(half, 0), later)
        return queried | (later & ~queried.any(1, keepdim=True))

    def forget(self) -> None:
        self.first = self.later = None

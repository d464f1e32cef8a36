"""Which pieces of a text are masked."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_mask(rows: int, length: int, generator: torch.Generator) -> Tensor:
    """``[rows, length]``, true at 1..length random places of each row, their numbers spread evenly over the rows."""
    shares = (torch.arange(rows) + torch.rand(rows, generator=generator)) / rows
    counts = (shares * length).long().clamp(max=length - 1) + 1
    ranks = torch.rand(rows, length, generator=generator).argsort(-1).argsort(-1)
    return ranks < counts[:, None]

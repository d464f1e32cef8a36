"""Which pieces of a text are masked."""

from __future__ import annotations

import torch
from torch import Tensor


def stratified_counts(rows: int, length: int, generator: torch.Generator) -> Tensor:
    """``[rows]`` numbers of 1..length, spread evenly over the rows."""
    device = generator.device
    shares = (torch.arange(rows, device=device) + torch.rand(rows, generator=generator, device=device)) / rows
    return (shares * length).long().clamp(max=length - 1) + 1


def random_mask(counts: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """``[B, length]`` on the generator's device, true at ``counts [B]`` random places of each row."""
    device = generator.device
    ranks = torch.rand(len(counts), length, generator=generator, device=device).argsort(-1).argsort(-1)
    # Counts drawn on the host go to the device without waiting for what it is doing.
    return ranks < counts.to(device, non_blocking=True)[:, None]


def stratified_mask(rows: int, length: int, generator: torch.Generator) -> Tensor:
    """``[rows, length]``, true at 1..length random places of each row, their numbers spread evenly over the rows."""
    return random_mask(stratified_counts(rows, length, generator), length, generator)

"""Functions under `torch.compile` that steps call."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.compile(backend="eager")
def doubled(x: Tensor) -> Tensor:
    return x * 2 + 0.5


@torch.compile(backend="eager", fullgraph=True)
def halved(x: Tensor) -> Tensor:
    return x / 2 - 0.5


FUNCTIONS = {"plain": doubled, "whole": halved}

"""Heads whose every weight is random, and what is seen of their calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from marche_fx.denoising import Denoising
from marche_fx.denoising.replace import with_denoising
from marche_fx.models.head import DiffLoss
from tests.denoising.official import OfficialHead

Head = TypeVar("Head", bound=nn.Module)

CHANNELS, CONDITION = 4, 6


def randomised(head: Head, seed: int = 1) -> Head:
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draws))
    return head.eval()


def bundled_head(steps: int, limit: float | None = 1.0) -> DiffLoss:
    return randomised(DiffLoss(CHANNELS, CONDITION, 2, 16, steps, limit)).double()


def official_head(steps: int) -> OfficialHead:
    return randomised(OfficialHead(CHANNELS, CONDITION, steps))


def replaced(head: Head, asked: Denoising, step: int = 0, of: int = 1) -> Head:
    """The head that denoises as asked, in decoding step ``step`` of ``of``."""
    found: Any = with_denoising(head, asked, lambda given: (step, of))
    return found


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def calls_of(head: Any, run: Callable[[], Tensor]) -> list[tuple[int, int]]:
    """The timestep and the number of rows in each call of the network while ``run`` runs."""
    rows: list[int] = []
    timesteps: list[int] = []
    # ``forward_with_cfg`` calls ``forward`` itself, past the hooks of the network.
    hooks = [
        head.net.input_proj.register_forward_pre_hook(lambda _, given: rows.append(len(given[0]))),
        head.net.time_embed.register_forward_pre_hook(lambda _, given: timesteps.append(int(given[0][0]))),
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return list(zip(timesteps, rows, strict=True))

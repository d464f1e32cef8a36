"""Training for so many seconds: the learning rate follows the share of the time that has passed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ..errors import TrainingError

READ_EVERY = 50
"""Steps between two looks at the loss, each of which waits for the device."""

LINES = 10
"""So often a training tells how it goes."""

Tell = Callable[[float, int, float], None]
"""Takes the share of the time that has passed, the number of steps, and the loss, smoothed over steps."""


def rate_by_share(share: float, warmup: float = 0.03) -> float:
    """What the learning rate is multiplied by: it rises over ``warmup`` of the time, then falls to nothing."""
    return min(share / warmup, (1 - share) / (1 - warmup))


def train_for(
    seconds: float,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    draw_loss: Callable[[], Tensor],
    learning_rate: float,
    *,
    clip: float = 1.0,
    bf16: bool = False,
    tell: Tell = lambda share, step, loss: None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Minimise ``draw_loss()``, the loss of a batch, until ``seconds`` have passed; return how many steps that were.

    Raises:
        TrainingError: the loss is no longer finite, or the time ends before the first step.
    """
    device_type = next(model.parameters()).device.type
    parameters = list(model.parameters())
    began, step, told = clock(), 0, 0
    smooth = torch.zeros((), device=parameters[0].device)
    model.train()
    while (elapsed := clock() - began) < seconds:
        share = elapsed / seconds
        with torch.autocast(device_type, torch.bfloat16, enabled=bf16):
            loss = draw_loss()
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, clip)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate_by_share(share)
            optimizer.step()
        smooth.lerp_(loss.detach(), 1 / min(step + 1, 50))
        step += 1
        if step % READ_EVERY == 0:
            read_loss(smooth, step)
            if int(share * LINES) > told:
                told = int(share * LINES)
                tell(share, step, smooth.item())
    if step == 0:
        raise TrainingError(f"{seconds:g} seconds were over before the first step; give more --minutes")
    tell(1.0, step, read_loss(smooth, step))
    model.eval()
    return step


def read_loss(loss: Tensor, step: int) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise TrainingError(f"the loss became {value} before step {step}; take a lower learning rate")
    return value

"""The exponential moving average of the weights, which is what a run is for."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


@torch.no_grad()
def average(averaged: AveragedModel, model: nn.Module, decay: float) -> None:
    """Move the weights of ``averaged`` towards those of ``model``, the first time all the way.

    `AveragedModel.update_parameters` gives the same, but sends the number of updates to the device and waits for it.
    """
    update = get_ema_multi_avg_fn(decay if averaged.n_averaged else 0.0)
    update(list(averaged.module.parameters()), list(model.parameters()), averaged.n_averaged)
    averaged.n_averaged += 1

"""Trainings of ten steps, whole or killed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marche_fx.models.mar import MAR
from marche_fx.models.train import Recipe, train

from .tiny import tiny_images, tiny_mar

IMAGES = tiny_images(20)
RECIPE = Recipe(epochs=2, batch=4, warmup=3, ema=0.8)  # 10 steps


class Killed(BaseException):
    """Stands for a kill: nothing in the library may catch it."""


def fresh_model() -> MAR:
    """With dropout and label dropping, so that training draws random numbers everywhere it can."""
    return tiny_mar(label_drop_prob=0.5, proj_dropout=0.2).float()


def killed_after(calls: int, out: Path, **options: Any) -> None:
    model, remaining = fresh_model(), iter(range(calls))

    def kill(*_: object) -> None:
        if next(remaining, None) is None:
            raise Killed

    model.register_forward_pre_hook(kill)
    with pytest.raises(Killed):
        train(model, IMAGES, out, RECIPE, checkpoint_seconds=0, **options)


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    weights = b.state_dict()
    assert [name for name, tensor in a.state_dict().items() if not torch.equal(tensor, weights[name])] == []


class Bias(nn.Module):
    """Its loss is the square of one number, whatever the images."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.value**2

"""Models that are called with any number of tokens, and those that are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from marche_fx.models.text.model import TextDiffusion
from marche_fx.passes.capture.arguments import opened
from tests.generated.arguments import Arguments, make_arguments
from tests.generated.recipe import Recipe

WORDS = 11

LENGTHS = (12, 17, 9, 24, 5, 31, 16, 8, 20, 13)


def text_model(depth: int = 1) -> TextDiffusion:
    torch.manual_seed(0)
    return TextDiffusion(WORDS, width=16, depth=depth, heads=2, hidden=24).eval().requires_grad_(False)


def words(length: int, samples: int = 2) -> Tensor:
    return torch.randint(WORDS, (samples, length), generator=Generator().manual_seed(length))


class Around(nn.Module):
    """A text model whose results change by what is looked at in its shape."""

    def __init__(self) -> None:
        super().__init__()
        self.text = text_model()

    def forward(self, ids: Tensor) -> Tensor:
        return self.text(ids)


class Doubled(Around):
    """Takes one way for long texts and another for short ones."""

    def forward(self, ids: Tensor) -> Tensor:
        logits = self.text(ids)
        return logits * 2 if ids.shape[1] > 15 else logits


class Counted(Around):
    """Knows its length as a number of Python's."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.text(ids) * int(ids.shape[1])


def of_any_length(recipe: Recipe) -> Recipe:
    """A recipe without what holds for one number of tokens alone, or for one call with its arguments."""
    layers = tuple(
        replace(
            layer,
            bias=layer.bias if layer.bias == "input" else "none",
            mask=layer.mask if layer.mask == "padding" else "none",
            rotary="none",
            mixer="none",
            window="none",
        )
        for layer in recipe.layers
    )
    without: dict[str, Any] = dict.fromkeys(("position", "drops", "draws", "writes"), "none")
    return replace(recipe, layers=layers, default_dtype="float32", picked=False, **without)


def call_with(recipe: Recipe, tokens: int) -> Arguments:
    """What the model of a recipe is called with for another number of tokens."""
    args, kwargs = opened(make_arguments(replace(recipe, tokens=tokens), Generator().manual_seed(tokens)))
    return args, kwargs

"""Windows of tokens that are folded into the samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.generated.recipe import Layer, Recipe


class Windows(nn.Module):
    """``[B, N, D]`` to windows ``[B * N / W, W, D]`` and back, with a table of positions inside."""

    def __init__(self, recipe: Recipe, layer: Layer) -> None:
        super().__init__()
        self.kind, self.length, self.count = layer.window, *window_shape(recipe)
        shape = (1, self.length, recipe.width) if layer.parallel else (self.length, recipe.width)
        self.inside = nn.Parameter(torch.zeros(shape))

    def fold(self, x: Tensor) -> Tensor:
        if self.kind == "rows":
            x = x.unflatten(1, (self.count, self.length)).flatten(0, 1)
        elif self.kind == "columns":
            x = x.unflatten(1, (self.length, self.count)).transpose(1, 2).flatten(0, 1)
        else:
            x = x.reshape(-1, self.length, x.shape[-1])
        return x + self.inside

    def unfold(self, x: Tensor) -> Tensor:
        if self.kind == "columns":
            return x.unflatten(0, (-1, self.count)).transpose(1, 2).flatten(1, 2)
        return x.unflatten(0, (-1, self.count)).flatten(1, 2)


def window_shape(recipe: Recipe) -> tuple[int, int]:
    """Tokens of a window, and windows of a sample."""
    length = next((size for size in (2, 3) if recipe.tokens % size == 0), 1)
    return recipe.tokens // length, length

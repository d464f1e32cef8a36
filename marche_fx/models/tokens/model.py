"""A class-conditional MaskGIT (Chang et al. 2022, arXiv 2202.04200) over the tokens of garments, small.

A transformer that predicts every masked code of an image from the codes around it. It knows nothing of marche_fx: it is
written as its user would write it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..fashion import CLASSES
from ..transformer import Block
from .tokenizer import SIDE

GRID_BASE = 100.0
"""Rotary frequencies of rows and of columns fall from 1 to nearly 1 / GRID_BASE: a grid is short."""


class MaskGIT(nn.Module):
    """Codes ``[B, N]`` and labels ``[B]`` to logits ``[B, N, V]`` of the V codes.

    ``mask_id``, which is V, stands for a code that is not known yet; ``no_label`` for a class that is not told, which
    guidance needs.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        codes: int = 240,
        side: int = SIDE,
        classes: int = len(CLASSES),
        width: int = 192,
        depth: int = 7,
        heads: int = 6,
        hidden: int = 512,
    ) -> None:
        super().__init__()
        self.mask_id, self.no_label, self.tokens = codes, classes, side * side
        self.embed = nn.Embedding(codes + 1, width)
        self.label = nn.Embedding(classes + 1, width)
        self.position = nn.Parameter(torch.empty(self.tokens, width))
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.head = nn.Linear(width, codes)
        angles = grid_angles(side, width // heads // 2)
        self.register_buffer("cos", torch.cat([angles.cos(), angles.cos()], -1), persistent=False)
        self.register_buffer("sin", torch.cat([-angles.sin(), angles.sin()], -1), persistent=False)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        for name, parameter in self.named_parameters():
            if name.startswith("blocks.") and parameter.ndim > 1:
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            if name.endswith(("out.weight", "down.weight")):
                # What the blocks add to their inputs keeps its size whatever their number is.
                parameter.data /= math.sqrt(2 * len(self.blocks))
        for table in (self.embed.weight, self.label.weight, self.position, self.head.weight):
            nn.init.normal_(table, std=0.02)
        nn.init.zeros_(self.head.bias)

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        x = self.embed(ids) + self.position + self.label(labels)[:, None]
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return self.head(self.norm(x))


def grid_angles(side: int, count: int) -> Tensor:
    """``[side * side, count]``: how far rotary positions turn for each token; half by its row, half by its column."""
    half = count // 2
    frequencies = GRID_BASE ** -(torch.arange(half) / half)
    row = torch.arange(side).repeat_interleave(side)
    column = torch.arange(side).repeat(side)
    return torch.cat([torch.outer(row, frequencies), torch.outer(column, frequencies)], -1)

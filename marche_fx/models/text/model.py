"""A masked-diffusion language model in the manner of LLaDA (Nie et al. 2025, arXiv 2502.09992), small.

A transformer without a causal mask that predicts every masked piece of a text from the pieces around it. It knows
nothing of marche_fx: it is written as its user would write it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..transformer import Attention, Block


class TextDiffusion(nn.Module):
    """Masked pieces ``[B, N]`` to logits ``[B, N, V]`` of what stands there, for any N.

    One of the V pieces, ``mask_id``, stands for a piece that is not known yet; it is never an answer.
    """

    frequencies: Tensor

    def __init__(
        self,
        vocabulary: int = 4096,
        width: int = 256,
        depth: int = 7,
        heads: int = 8,
        hidden: int = 704,
        mask_id: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.mask_id = mask_id
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden, dropout) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=1e-6)
        half = width // heads // 2
        self.register_buffer("frequencies", 10000.0 ** -(torch.arange(half) / half), persistent=False)
        self.initialize_weights()

    def initialize_weights(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1 and name != "embed.weight":
                # Attention that is nearly even at first takes long to learn where to look.
                nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
            if name.endswith(("out.weight", "down.weight")):
                # What the blocks add to their inputs keeps its size whatever their number is.
                parameter.data /= math.sqrt(2 * len(self.blocks))
        nn.init.normal_(self.embed.weight, std=0.02)
        for module in self.modules():
            if isinstance(module, Attention):
                module.look_nearby(self.frequencies)

    def hidden(self, ids: Tensor) -> Tensor:
        """``[B, N]`` int64 to ``[B, N, D]``, what the logits are made of."""
        angles = torch.outer(torch.arange(ids.shape[1], device=ids.device), self.frequencies)
        cos = torch.cat([angles.cos(), angles.cos()], -1)
        sin = torch.cat([-angles.sin(), angles.sin()], -1)
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.norm(x)

    def head(self, x: Tensor) -> Tensor:
        """``[..., D]`` to logits ``[..., V]``, with the weights of the embedding."""
        return F.linear(x, self.embed.weight)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.hidden(ids))

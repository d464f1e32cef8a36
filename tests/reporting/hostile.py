"""A model whose names are markup in HTML and in rich's console; PyTorch exports none with a double quote."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.networks import Block, FusedAttention, Mlp

NAMES = (
    "</script><script>document['title']='broken'</script>",
    "<img src=x onerror=document['title']='broken'>",
    "[link=javascript:document['title']='broken']x",
    "[cls]",
    "[/]",
    "a & b &amp; 'c'",
)


class Hostile(nn.Module):
    """``[B, N, 16]`` to the same, by a block for each name."""

    def __init__(self) -> None:
        super().__init__()
        blocks = {name: Block(16, FusedAttention(16, 2, 30), Mlp(16)) for name in NAMES}
        self.blocks = nn.ModuleDict(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks.values():
            x = block(x)
        return x


def hostile() -> nn.Module:
    torch.manual_seed(0)
    return Hostile().eval()

"""A model's blocks run by hand for active tokens, and what signals are compared with."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class ByHand:
    """A model's blocks with `FusedAttention`, run for active tokens from their own projections.

    Args:
        blocks: in the order in which they are called; one that is called twice is there twice.
        position: added to the input.
    """

    def __init__(self, blocks: list[Any], position: Tensor | None = None, heads: int = 2) -> None:
        self.blocks = blocks
        self.position = 0 if position is None else position
        self.heads = heads
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def step(self, x: Tensor, active: Tensor) -> list[dict[str, Tensor]]:
        """For each block, of the active tokens, ``[B, A, D]``: q, k, v, the output of attention, and k and v before.

        ``received`` is the attention that the active tokens pay to every key, ``[B, N]``.
        """
        at = torch.arange(len(x))[:, None], active
        rows, found = (x + self.position)[at], []
        for number, block in enumerate(self.blocks):
            q, k, v = block.attention.qkv(block.norm1(rows)).chunk(3, -1)
            if len(self.keys) == number:
                # Never computed before.
                for cache in (self.keys, self.values):
                    cache.append(k.new_zeros(*x.shape[:2], k.shape[-1]))
            keys, values = self.keys[number], self.values[number]
            before = {"k before": keys[at], "v before": values[at]}
            keys[at], values[at] = k, v
            heads = [own.unflatten(-1, (self.heads, -1)).transpose(1, 2) for own in (q, keys, values)]
            weights = (heads[0] @ heads[1].transpose(2, 3) / math.sqrt(heads[0].shape[-1])).softmax(-1)
            output = (weights @ heads[2]).transpose(1, 2).flatten(2)
            found.append({"q": q, "k": k, "v": v, "output": output, "received": weights.mean((1, 2)), **before})
            rows = rows + block.attention.proj(output)
            rows = rows + block.mlp(block.norm2(rows))
        return found


def moved(now: Tensor, before: Tensor) -> Tensor:
    """``|now - before| / |now|`` of rows, ``[B, A]``."""
    return ((now - before).square().sum(-1) / now.square().sum(-1)).sqrt()


def spread(rows: Tensor, active: Tensor, tokens: int, start: int = 0) -> Tensor:
    """``[B, A]`` of the active tokens among all, one at a time."""
    found = torch.full((len(rows), tokens), math.nan)
    for sample in range(len(rows)):
        for number, token in enumerate(active[sample].tolist()):
            found[sample, start + token] = rows[sample, number]
    return found


def same(own: Tensor, other: Tensor) -> bool:
    """Whether two signals agree, also where neither was measured."""
    return torch.allclose(own, other, rtol=1e-4, atol=1e-6, equal_nan=True)

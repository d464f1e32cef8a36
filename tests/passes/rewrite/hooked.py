"""Rewritten models that measure signals."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from marche_fx.passes.rewrite.hooks import Hooks, insert_hooks
from tests.program import Program


class SelfAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        return x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Hooked(Program):
    """A rewritten model that measures ``signals``."""

    def __init__(self, model: nn.Module, args: list[Tensor], *signals: Callable[[Hooks], fx.Node | None]) -> None:
        super().__init__(model, "forward", args)
        self.split, self.found = insert_hooks(self.split, self.plan, signals)

    def measure(self, args: list[Tensor], active: list[Tensor], queried: list[Tensor] | None = None) -> list[Tensor]:
        """The signals of a step in which the tokens ``active [B, A]`` of each stream are recomputed."""
        return list(self.run(self.split.incremental.module, self.values(args), active, self.caches, queried))


def everything(tokens: int, samples: int = 2) -> Tensor:
    return torch.arange(tokens).expand(samples, tokens)


def received(model: nn.Module, args: list[Tensor], active: Tensor, queried: Tensor, sites: int) -> Tensor:
    """The attention signal after a step in full and one of ``active`` tokens."""
    program = Hooked(model, args, lambda hooks: hooks.attention(sites))
    assert len(Hooks(program.split, program.plan).observable) >= sites
    program.measure(args, [everything(args[0].shape[1], len(active))])
    (signal,) = program.measure(args, [active], [queried])
    return signal

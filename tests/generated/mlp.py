"""MLPs and mixtures of experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.generated.recipe import Recipe


class Experts(nn.Module):
    """Every expert on every token, weighted by a router."""

    def __init__(self, width: int, chosen: int | None) -> None:
        super().__init__()
        self.chosen = chosen
        self.router = nn.Linear(width, 3)
        self.up = nn.Parameter(torch.randn(3, width, 2 * width))
        self.experts = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.router(x).softmax(dim=-1)
        if self.chosen is not None:
            best, index = weights.topk(self.chosen, dim=-1)
            weights = torch.zeros_like(weights).scatter(-1, index, best / best.sum(-1, keepdim=True))
        hidden = torch.einsum("abc,ecf->abef", x, self.up).relu()
        results = torch.stack([expert(hidden[:, :, number]) for number, expert in enumerate(self.experts)], dim=-2)
        return (results * weights.unsqueeze(-1)).sum(dim=-2)


class PickedExperts(Experts):
    """Every expert on the tokens that chose it, which Python counts."""

    def forward(self, x: Tensor) -> Tensor:
        rows, count = x.flatten(0, 1), self.chosen or 1
        best, index = self.router(rows).softmax(dim=-1).topk(count, dim=-1)
        found = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            places, ranks = torch.where(index == number)
            if len(places):
                own = expert((rows[places] @ self.up[number]).relu()) * best[places, ranks, None]
                found.index_add_(0, places, own)
        return found.view_as(x)


class Mlp(nn.Module):
    def __init__(self, width: int, kind: str, tokens_first: bool) -> None:
        super().__init__()
        self.kind, self.tokens_first = kind, tokens_first
        if kind == "convolution":
            self.spread, self.gather = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(2 * width, width, 1)
            return
        self.up = nn.Linear(width, 4 * width if kind == "split" else 2 * width)
        self.gate = nn.Linear(width, 2 * width) if kind == "swiglu" else None
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "convolution":
            channels = x.permute(1, 2, 0) if self.tokens_first else x.transpose(1, 2)
            y = self.gather(F.gelu(self.spread(channels)))
            return y.permute(2, 0, 1) if self.tokens_first else y.transpose(1, 2)
        if self.kind == "split":
            value, gate = self.up(x).chunk(2, dim=-1)
            return self.down(value * F.gelu(gate))
        if self.gate is not None:
            return self.down(F.silu(self.gate(x)) * self.up(x))
        return self.down(F.relu(self.up(x)) if self.kind == "relu" else F.gelu(self.up(x), approximate="tanh"))


def make_mlp(recipe: Recipe, kind: str) -> nn.Module | None:
    if kind == "none":
        return None
    if "experts" in kind:
        made = PickedExperts if recipe.picked else Experts
        return made(recipe.width, 2 if kind == "top experts" else None)
    return Mlp(recipe.width, kind, recipe.tokens_first)

"""What a user is told of a step of which most is computed for all tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import marche_fx
from tests.loops import models
from tests.runtime.telling import made, told

EXPERTS, CHOSEN, WIDTH = 4, 2, 8 * models.D


class Experts(nn.Module):
    """Each of the experts takes the rows that chose it, as in LLaDA-MoE and Mixtral."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(models.D, EXPERTS, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(models.D, WIDTH), nn.GELU(), nn.Linear(WIDTH, models.D)) for _ in range(EXPERTS)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        weights, chosen = self.gate(rows).softmax(-1).topk(CHOSEN)
        mask, found = nn.functional.one_hot(chosen, EXPERTS).permute(2, 1, 0), torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            place, row = torch.where(mask[number])
            found.index_add_(0, row, expert(rows[row]) * weights[row, place, None])
        return found.view(x.shape)


class Mixture(models.Words):
    def __init__(self) -> None:
        super().__init__()
        for block in self.blocks:
            block.mlp = Experts()


def next_words(model: Any, ids: Tensor, number: int) -> Tensor:
    return model(ids)[:, 8:12] + 0


def test_experts_that_pick_their_rows_are_told_of_and_counted() -> None:
    (message,) = told(made(Mixture), next_words)
    assert "of the FLOPs of Mixture.forward are of operators that run on all tokens" in message
    assert "aten.linear at blocks." in message
    assert "test_in_full_advice.py:" in message
    assert "Its rows are picked by values, as those of an expert" in message
    assert "If 'blocks.0.mlp' treats each token by itself" in message
    optimized: Any = marche_fx.transform(made(Mixture), compile=False)
    ids = torch.full((2, models.N), models.MASK)
    with torch.no_grad(), marche_fx.decoding(optimized):
        optimized(ids)[:, :4].argmax(-1)
    (step,) = marche_fx.report(optimized).steps
    each = 2 * 2 * models.D * WIDTH
    assert step.fixed_flops["inside"] == len(optimized.blocks) * ids.numel() * CHOSEN * each
    assert "token_wise='blocks.*.mlp'" in message
    assert not told(made(Mixture), next_words, token_wise="blocks.*.mlp")
    assert not told(made(Mixture), next_words, refresh="exact")

"""What ``module:function`` may name: models of a user, right ones and wrong ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import marche_fx
from marche_fx.models import MAR
from tests.evaluate.tiny import tiny_garments

MASK = 0


class TinyText(nn.Module):
    """A masked language model: ids ``[B, N]`` to logits ``[B, N, 12]``."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(12, 16)
        self.place = nn.Parameter(torch.randn(1, 16, 16))
        self.qkv = nn.Linear(16, 48)
        self.mlp = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.out = nn.Linear(16, 12)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.place
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        x = x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.out(x + self.mlp(x))


def text() -> tuple[nn.Module, Callable[[nn.Module], None]]:
    torch.manual_seed(0)
    return TinyText().eval(), decode


def decode(given: nn.Module) -> None:
    """Eight steps, two tokens of each sample in each."""
    ids = torch.full((2, 16), MASK)
    with marche_fx.decoding(given):
        for step in range(8):
            logits = given(ids)
            ids = ids.clone()
            chosen = torch.arange(2 * step, 2 * step + 2)
            ids[:, chosen] = logits[:, chosen].argmax(-1) % 11 + 1


def queried() -> tuple[nn.Module, Callable[[nn.Module], None], dict[str, Any]]:
    return *text(), {"step": "forward", "query": lambda ids: ids == MASK}


def garments() -> tuple[MAR, Callable[[Any], Tensor]]:
    """A MAR, with its own loop."""
    return tiny_garments(), lambda given: given.sample_tokens(2, 4, 3.0, labels=torch.arange(2))


def raises() -> None:
    raise RuntimeError("no weights")


def run_raises() -> tuple[nn.Module, Callable[[nn.Module], None]]:
    def run(given: nn.Module) -> None:
        raise ValueError("no prompt")

    return text()[0], run


def no_step() -> tuple[nn.Module, Callable[[nn.Module], None]]:
    return text()[0], lambda given: None


def no_pair() -> nn.Module:
    return text()[0]


def wrong_options() -> tuple[nn.Module, Callable[[nn.Module], None], dict[str, str]]:
    return *text(), {"speed": "high"}

"""Attention whose heads share their keys, which then have no dimension of heads: which of q's are its queries."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from marche_fx.passes.rewrite.hooks import Hooks
from tests.program import Program

HEADS, SIZE = 3, 4
WIDTH = HEADS * SIZE

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``[B, N, H, d]`` of queries ``[B, N, H, d]``, keys and values ``[B, M, d]``."""


def heads_outside(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bhqd,bkd->bhqk", q.transpose(1, 2) / 2, k).softmax(-1)
    return torch.einsum("bhqk,bkd->bhqd", weights, v).transpose(1, 2)


def heads_inside(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    weights = torch.einsum("bqhd,bkd->bqhk", q / 2, k).softmax(-1)
    return torch.einsum("bqhk,bkd->bqhd", weights, v)


def keys_broadcast(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return ((q.transpose(1, 2) @ k[:, None].transpose(2, 3) / 2).softmax(-1) @ v[:, None]).transpose(1, 2)


def keys_broadcast_over_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q @ k[:, None].transpose(2, 3) / 2).softmax(-1) @ v[:, None]


def heads_joined_to_queries(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    samples, tokens = q.shape[:2]
    flat = q.transpose(1, 2).reshape(samples, HEADS * tokens, SIZE)
    return ((flat @ k.transpose(1, 2) / 2).softmax(-1) @ v).view(samples, HEADS, tokens, SIZE).transpose(1, 2)


def queries_joined_to_heads(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    flat = q.flatten(1, 2)
    return ((flat @ k.transpose(1, 2) / 2).softmax(-1) @ v).view(q.shape)


def joined_under_a_bias(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    tokens = q.shape[1]
    flat = q.transpose(1, 2).flatten(1, 2)
    scores = (flat @ k.transpose(1, 2) / 2).unflatten(1, (HEADS, tokens)) + torch.ones(tokens, 1, dtype=q.dtype)
    return (scores.softmax(-1).flatten(1, 2) @ v).unflatten(1, (HEADS, tokens)).transpose(1, 2)


FORMS = [
    heads_outside,
    heads_inside,
    keys_broadcast,
    keys_broadcast_over_queries,
    heads_joined_to_queries,
    queries_joined_to_heads,
    joined_under_a_bias,
]


class SharedKeys(nn.Module):
    """Attention to a context, if there is one, and among tokens."""

    def __init__(self, attend: Attend) -> None:
        super().__init__()
        self.attend = attend
        self.q, self.kv = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * SIZE)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        for read in (*context, None):
            q, (k, v) = self.q(x).unflatten(-1, (HEADS, SIZE)), self.kv(x if read is None else read).chunk(2, -1)
            x = x + self.attend(q, k, v).flatten(2)
        return x


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("tokens", [5, HEADS, SIZE, WIDTH])
@pytest.mark.parametrize("context", [0, 4])
@pytest.mark.parametrize("attend", FORMS)
@torch.no_grad()
def test_queries_are_told_from_heads_that_share_keys(attend: Attend, context: int, tokens: int, samples: int) -> None:
    model, generator = SharedKeys(attend).double().eval(), torch.Generator().manual_seed(0)

    def inputs() -> list[Tensor]:
        counts = [tokens, context] if context else [tokens]
        return [torch.randn(samples, count, WIDTH, dtype=torch.float64, generator=generator) for count in counts]

    program = Program(model, "forward", inputs())
    assert program.plan.axes.lengths == (tokens,)
    assert len(program.plan.sites) == (2 if context else 1)
    assert not program.plan.region.full
    assert len(Hooks(program.split, program.plan).observable) == 1
    oracle = program.oracle()
    for count in (tokens, 2, tokens):
        values, active = inputs(), torch.rand(samples, tokens, generator=generator).argsort(-1)[:, :count]
        (result,), (expected,) = program.step(values, active), oracle.step(values, active)
        torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
        if count == tokens:
            torch.testing.assert_close(result, model(*values), rtol=1e-10, atol=1e-10)

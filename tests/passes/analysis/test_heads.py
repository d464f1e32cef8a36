"""Which wide results are computed of a narrow value alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from marche_fx.passes.analysis.heads import Head, find_head
from marche_fx.passes.analysis.liveness import find_read_only
from marche_fx.passes.pipeline import make_plan
from tests.networks import Transformer

N, WIDTH, WORDS = 9, 8, 40
aten = torch.ops.aten


class Model(nn.Module):
    """``x [B, N, D], time [B, 1] -> logits``, with what a test makes of the last hidden state."""

    def __init__(self, last: Callable[[Model, Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.body = Transformer(N, WIDTH, 2, depth=1)
        self.body.add_module("head", nn.Identity())
        self.words, self.time = nn.Linear(WIDTH, WORDS), nn.Linear(1, WORDS)
        self.table = nn.Parameter(torch.randn(N, WORDS))
        self.last = last

    def forward(self, x: Tensor, time: Tensor) -> Any:
        return self.last(self, self.body(x), time)


def head_of(last: Callable[[Model, Tensor, Tensor], Any]) -> Head | None:
    torch.manual_seed(0)
    plan = make_plan(Model(last).eval(), "forward", (torch.randn(2, N, WIDTH), torch.randn(2, 1)))
    return find_head(plan, find_read_only(plan.graph, plan.region))


def capped(logits: Tensor) -> Tensor:
    return (logits / 30).tanh() * 30


FOUND: dict[str, tuple[Callable[[Any, Tensor, Tensor], Any], int]] = {
    "a linear": (lambda model, h, t: model.words(h), 1),
    "what follows it": (lambda model, h, t: capped(model.words(h)), 4),
    "a weight that is computed of weights": (lambda model, h, t: h @ (model.words.weight * 2).T, 1),
    "beside the hidden state": (lambda model, h, t: (model.words(h), h), 1),
    "a word's channels apart": (lambda model, h, t: model.words(h).unflatten(-1, (4, 10)), 2),
}
NOT_FOUND: dict[str, Callable[[Any, Tensor, Tensor], Any]] = {
    "hardly wider": lambda model, h, t: h @ model.words.weight[: 2 * WIDTH - 1].T,
    "scaled by an argument": lambda model, h, t: model.words(h) * model.time(t)[:, None],
    "with a table of positions": lambda model, h, t: model.words(h) + model.table,
    "of two values": lambda model, h, t: model.words(h) + model.words(h.relu()).relu(),
    "read by another result": lambda model, h, t: (logits := model.words(h), logits.argmax(-1)),
    "returned twice": lambda model, h, t: (logits := model.words(h), logits),
    "shifted by a token": lambda model, h, t: model.words(h).roll(1, 1),
    "of samples as channels": lambda model, h, t: model.words(h).flatten(0, 1),
}


@pytest.mark.parametrize("name", FOUND)
def test_a_head_is_what_follows_the_last_narrow_value(name: str) -> None:
    last, count = FOUND[name]
    head = head_of(last)
    assert head is not None
    assert head.value.meta["val"].shape == (2, N, WIDTH)
    assert head.value.target is aten.layer_norm.default
    assert head.result.meta["val"].numel() == 2 * N * WORDS
    assert len(head.nodes) == count


@pytest.mark.parametrize("name", NOT_FOUND)
def test_what_is_computed_of_more_than_one_row_of_a_value_and_weights_has_none(name: str) -> None:
    assert head_of(NOT_FOUND[name]) is None

"""Signals where several streams of tokens meet in attention."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.by_hand import moved, same, spread
from tests.passes.rewrite.hooked import Hooked, SelfAttention, everything
from tests.passes.rewrite.test_streams import IMAGE, TEXT, WIDTH, JointAttention, sliced


class JointAndAlone(nn.Module):
    """Text and image attend to each other, then the image alone, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.joint, self.alone = SelfAttention(WIDTH), SelfAttention(WIDTH)

    def forward(self, text: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(2):
            both = self.joint(torch.cat([text, image], 1))
            text, image = text + both[:, :TEXT], self.alone(image + both[:, TEXT:])
        return text, image


def projected(module: SelfAttention, rows: Tensor) -> tuple[Tensor, ...]:
    """q, k and v of rows, ``[B, A, D]`` each."""
    return module.qkv(rows).chunk(3, -1)


@pytest.mark.parametrize(("path", "start", "tokens"), [("joint", 0, TEXT + IMAGE), ("alone", TEXT, IMAGE)])
@torch.no_grad()
def test_signals_of_a_stream_are_of_its_own_tokens(path: str, start: int, tokens: int) -> None:
    torch.manual_seed(0)
    model = JointAndAlone().eval()
    before = [torch.randn(2, count, WIDTH) for count in (TEXT, IMAGE)]
    now = [x + 0.3 * torch.randn(x.shape) for x in before]
    program = Hooked(
        model,
        before,
        lambda hooks: hooks.value_drift(path),
        lambda hooks: hooks.attention(path),
        lambda hooks: hooks.rows(path, "k", lambda now, before: now.mean(-1)),
    )
    assert program.plan.axes.lengths == (TEXT, IMAGE)
    program.measure(before, [everything(TEXT), everything(IMAGE)])
    text, image = torch.tensor([[2], [0]]), torch.tensor([[0, 3], [4, 1]])
    drift, attention, keys = program.measure(now, [text, image])

    # The joint attention of the tokens that are recomputed, from the caches of both streams.
    both, at = torch.cat([text, TEXT + image], 1), torch.arange(2)[:, None]
    stale, rows = torch.cat(before, 1), torch.cat(now, 1)[at, both]
    mixed = stale.clone()
    mixed[at, both] = rows
    active, old, new = both, stale, rows
    if path == "alone":
        # What the image alone attends to is what the joint attention made of its tokens.
        old = (stale + model.joint(stale))[:, TEXT:]
        active, new = image, (mixed + model.joint(mixed))[at, TEXT + image]
        mixed = old.clone()
        mixed[at, active] = new
    module: Any = getattr(model, path)
    _, k, v = projected(module, new)
    assert same(drift, spread(moved(v, projected(module, old)[2][at, active]), active, TEXT + IMAGE, start))
    assert same(keys, spread(k.mean(-1), active, TEXT + IMAGE, start))
    q, all_keys = (
        own.unflatten(-1, (2, -1)).transpose(1, 2) for own in (projected(module, new)[0], projected(module, mixed)[1])
    )
    weights = (q @ all_keys.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(-1).mean((1, 2))
    assert weights.shape == (2, tokens)
    assert same(attention[:, start : start + tokens], weights)
    assert not attention[:, :start].any(), "nobody attends to tokens of the other stream"


@torch.no_grad()
def test_both_streams_of_a_joint_attention_are_measured() -> None:
    torch.manual_seed(0)
    model = JointAttention(sliced).eval()
    before = [torch.randn(2, count, WIDTH) for count in (TEXT, IMAGE)]
    now = [x + 0.3 * torch.randn(x.shape) for x in before]
    program = Hooked(model, before, lambda hooks: hooks.value_drift(1))
    program.measure(before, [everything(TEXT), everything(IMAGE)])
    text, image, at = torch.tensor([[1], [2]]), torch.tensor([[4, 0], [2, 3]]), torch.arange(2)[:, None]
    (signal,) = program.measure(now, [text, image])
    drifts = []
    for own, active, (old, new) in zip((model.text, model.image), (text, image), zip(before, now)):
        old_values, new_values = (own(x)[at, active].chunk(3, -1)[2] for x in (old, new))
        drifts.append(moved(new_values, old_values))
    assert same(signal, spread(torch.cat(drifts, 1), torch.cat([text, TEXT + image], 1), TEXT + IMAGE))

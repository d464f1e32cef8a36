"""A model without attention is told what mixes its tokens, and what comes nearest to attention."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import marche_fx
from marche_fx import UnsupportedModelError
from tests.networks import Mlp

X = torch.randn(3, 5, 4)


def refusal(model: nn.Module, *args: Tensor) -> str:
    with pytest.raises(UnsupportedModelError) as error:
        marche_fx.explain(model.eval(), *args)
    # Line numbers are for a reader to follow, not for a test to repeat.
    return re.sub(r"\.py:\d+", ".py:1", str(error.value))


class LinearAttention(nn.Module):
    """Keys meet values before queries meet them: no score of a token for a token."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.elu(q) @ (F.elu(k).transpose(1, 2) @ v)


class Block(nn.Module):
    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer
        self.mlp = Mlp(4)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(x)
        return x + self.mlp(x)


def test_linear_attention_is_named_with_what_it_lacks() -> None:
    assert refusal(Block(LinearAttention()), X) == (
        """\
found no attention over a token axis, so there is nothing to cache. The tokens of its input are mixed first by \
aten.matmul at mixer (test_candidates.py:1). marche_fx accelerates models whose tokens meet in attention. \
What comes nearest:
  aten.matmul at mixer (test_candidates.py:1): sums over the tokens without the weights of a softmax (linear attention)
  aten.linear at mlp.fc2 (networks.py:1): an MLP, which reads no other token and so has nothing to cache"""
    )


class NormalisedScores(LinearAttention):
    """Scores of tokens for tokens, divided by their sum."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.view(3, 5, 2, 2).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        scores = q.relu() @ k.relu().transpose(-1, -2)
        return (scores / (scores.sum(-1, keepdim=True) + 1) @ v).transpose(1, 2).reshape(3, 5, 4)


def test_scores_without_a_softmax_are_named_with_their_shape() -> None:
    message = refusal(NormalisedScores(), X)
    assert "aten.matmul (test_candidates.py:1): compares tokens with tokens, [3, 2, 5, 5], but no softmax" in message
    # The second product belongs to the same attention.
    assert message.count("aten.matmul") == 1


class SoftmaxPooling(nn.Module):
    """A token's score is its own."""

    def __init__(self, contracts: bool) -> None:
        super().__init__()
        self.score = nn.Linear(4, 1)
        self.contracts = contracts

    def forward(self, x: Tensor) -> Tensor:
        weights = self.score(x).softmax(1)
        pooled = weights.transpose(1, 2) @ x if self.contracts else (weights * x).sum(1, keepdim=True)
        return x + pooled


@pytest.mark.parametrize("contracts", [True, False])
def test_softmax_pooling_is_named_with_what_it_lacks(contracts: bool) -> None:
    message = refusal(SoftmaxPooling(contracts), X)
    assert "mixed first by aten.softmax (test_candidates.py:1)" in message
    assert "aten.softmax (test_candidates.py:1): what it weighs along dimension 1 is no product of queries" in message
    assert ("no contraction sums values with its weights over dimension 1" in message) == (not contracts)


class ManySoftmaxes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        for _ in range(8):
            x = x.softmax(-1)
        return x


def test_a_message_names_a_few_candidates() -> None:
    lines = refusal(ManySoftmaxes(), X).splitlines()
    assert len(lines) == 7
    assert lines[-1] == "  and 3 more"


class Pixels(nn.Module):
    """Channels meet in a convolution of one pixel, then pixels in one of nine; no dimension of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.widen = nn.Conv2d(3, 8, 1)
        self.mix = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.widen(x).relu())


def test_the_tokens_of_an_image_are_its_pixels() -> None:
    message = refusal(Pixels(), torch.randn(2, 3, 6, 6))
    assert "mixed first by aten.convolution at mix (test_candidates.py:1)" in message
    assert "nearest" not in message


def test_a_convolution_over_tokens_is_named() -> None:
    model = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv1d(4, 4, 3, padding=1))
    assert "mixed first by aten.convolution at 0" in refusal(model, X.transpose(1, 2))

"""Small models of words of the kinds that public loops decode with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASK, WORDS, N, D = 19, 20, 64, 32


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(D), nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.mlp = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, 2 * D), nn.GELU(), nn.Linear(2 * D, D))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(attend(q, k, v))
        return x + self.mlp(x)


class Words(nn.Module):
    """``[B, N]`` to ``[B, N, WORDS]``."""

    def __init__(self) -> None:
        super().__init__()
        self.word, self.place = nn.Embedding(WORDS, D), nn.Parameter(torch.randn(2 * N, D))
        self.blocks, self.head = nn.ModuleList(Block() for _ in range(3)), nn.Linear(D, WORDS)

    def body(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x

    def embedded(self, ids: Tensor) -> Tensor:
        return self.word(ids) + self.place[: ids.shape[1]]

    def forward(self, ids: Tensor) -> Any:
        return self.logits(ids)

    def logits(self, ids: Tensor) -> Tensor:
        return self.head(self.body(self.embedded(ids)))


class Conditioned(Words):
    """Under a vector, such as that of a class."""

    def forward(self, ids: Tensor, vector: Tensor) -> Tensor:  # type: ignore[override]
        return self.head(self.body(self.embedded(ids) + vector[:, None]))


class Timed(Words):
    """Under a time, or a share of masked tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(1, D), nn.SiLU(), nn.Linear(D, D))

    def forward(self, ids: Tensor, time: Tensor) -> Tensor:  # type: ignore[override]
        return self.head(self.body(self.embedded(ids) + self.time(time[:, None])[:, None]))


class SelfConditioned(Words):
    """Given what it said of every token in the step before."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(WORDS, D)

    def forward(self, ids: Tensor, said: Tensor) -> Tensor:  # type: ignore[override]
        return self.head(self.body(self.embedded(ids) + self.before(said)))


class Codebooks(Words):
    """Several words a token: ``[B, K, N, V]``, or in ``order``."""

    def __init__(self, order: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        super().__init__()
        self.order, self.heads = order, nn.ModuleList(nn.Linear(D, WORDS) for _ in range(2))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.body(self.embedded(ids))
        return torch.stack([head(x) for head in self.heads], 1).permute(self.order)


class ChannelsFirst(Words):
    """``[B, V, N]``."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(ids).transpose(1, 2)


class Picture(Words):
    """``[B, V, H, W]``."""

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(ids).transpose(1, 2).unflatten(2, (8, 8))


class Unpatched(Words):
    """A picture of pixels, two by two a token: ``[B, C, 2 H, 2 W]``."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.logits(ids).unflatten(1, (8, 8)).unflatten(3, (5, 2, 2))
        return x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


class Shuffled(Words):
    """Tokens in an order of its own inside, put back at the end, as masked autoencoders do."""

    order: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(N, generator=torch.Generator().manual_seed(0)))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.body(self.embedded(ids)[:, self.order])
        back = self.order.argsort()[None, :, None].expand(len(ids), -1, D)
        return self.head(x.gather(1, back))


class Averaged(Words):
    """The mean of what every layer says."""

    def forward(self, ids: Tensor) -> Tensor:
        x, found = self.embedded(ids), []
        for block in self.blocks:
            x = block(x)
            found.append(self.head(x))
        return torch.stack(found).mean(0)


class GuidedInside(Words):
    """Guidance inside of the step: twice as many samples in it."""

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedded(ids)
        some, none = self.head(self.body(torch.cat([x, 0.5 * x]))).chunk(2)
        return none + 3 * (some - none)


class NullKey(Words):
    """A learned key before those of the tokens, normalised together with them."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.ModuleList(nn.Linear(D, D) for _ in range(3)) for _ in range(3))
        self.null = nn.Parameter(torch.randn(2, 4, 1, D // 4))

    def body(self, x: Tensor) -> Tensor:
        for own_q, own_k, own_v in zip(self.q, self.k, self.v):
            q, k, v = (own(x).unflatten(-1, (4, -1)).transpose(1, 2) for own in (own_q, own_k, own_v))
            k, v = (torch.cat([null.expand(len(x), -1, -1, -1), own], 2) for null, own in zip(self.null, (k, v)))
            x = x + attend(F.normalize(q, dim=-1), F.normalize(k, dim=-1), v)
        return x


class TwoResults(Words):
    """Rows and a number a sample."""

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = self.body(self.embedded(ids))
        return self.head(x), x.mean(1)


class Parent(nn.Module):
    """The object with the loop, whose child is the network."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Words()

    def forward(self, ids: Tensor) -> Tensor:
        return F.cross_entropy(self.net(ids).transpose(1, 2), ids)

    def predict(self, ids: Tensor) -> Tensor:
        return self.net(ids)

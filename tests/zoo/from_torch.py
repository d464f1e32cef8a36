"""Layers of torch."""

from __future__ import annotations

from torch import Generator, Tensor, nn

from .entry import VOCABULARY, WIDTH, Arguments, Entry, floats, ids, padding, plain_ids


def padded_ids(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (ids(samples, tokens, generator), ~padding(samples, tokens, generator)), {}


def embedded(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (floats(samples, tokens, WIDTH, generator=generator),), {}


class TorchEncoder(nn.Module):
    def __init__(self, *, norm_first: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, ids: Tensor, padding: Tensor | None = None) -> Tensor:
        return self.encoder(self.embedding(ids), src_key_padding_mask=padding)


class TorchAttention(nn.Module):
    def __init__(self, *, need_weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, WIDTH)
        self.need_weights = need_weights

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        mixed, weights = self.attention(x, x, x, need_weights=self.need_weights)
        return (self.head(x + mixed), weights) if self.need_weights else self.head(x + mixed)


ENTRIES = (
    Entry("nn.TransformerEncoder", lambda: TorchEncoder(norm_first=False), plain_ids, 2, 2),
    Entry("nn.TransformerEncoder padded", lambda: TorchEncoder(norm_first=False), padded_ids, 2, 2),
    Entry("nn.TransformerEncoder pre-norm, padded", lambda: TorchEncoder(norm_first=True), padded_ids, 2, 2),
    Entry("nn.MultiheadAttention", lambda: TorchAttention(need_weights=False), embedded, 1, 0),
    Entry("nn.MultiheadAttention, weights", lambda: TorchAttention(need_weights=True), embedded, 1, 0, share=0.3),
)

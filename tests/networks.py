"""Small transformers that differ in what the passes must understand."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from marche_fx.models.mar import MAR


class FusedAttention(nn.Module):
    """One projection to q, k and v, then PyTorch's attention."""

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, width))


class BiasedAttention(nn.Module):
    """Attention written out, with a learned bias for every head, query and key."""

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(heads, tokens, tokens))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (f(x).view(batch, tokens, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(width / self.heads) + self.bias
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width))


class FoldedAttention(FusedAttention):
    """Attention on ``[B * H, N, d]``."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (
            t.reshape(batch, tokens, self.heads, -1).transpose(1, 2).reshape(batch * self.heads, tokens, -1)
            for t in self.qkv(x).chunk(3, -1)
        )
        y = torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v)
        return self.proj(y.view(batch, self.heads, tokens, -1).transpose(1, 2).reshape(batch, tokens, width))


class EinsumAttention(FusedAttention):
    """Attention by named axes, scores capped softly."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (t.reshape(batch, tokens, self.heads, -1) for t in self.qkv(x).chunk(3, -1))
        scores = 2 * torch.tanh(torch.einsum("bihd,bjhd->bhij", q, k) / 2)
        return self.proj(torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), v).reshape(batch, tokens, width))


class SinkAttention(FusedAttention):
    """Attention written out, some of which goes to no token: a column of learned scores beside those of keys."""

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__(width, heads, tokens)
        self.sink = nn.Parameter(torch.randn(heads))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (t.reshape(batch, tokens, self.heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        sink = self.sink.view(1, -1, 1, 1).expand(batch, -1, tokens, 1)
        weights = torch.cat([q @ k.transpose(-1, -2), sink], -1).softmax(-1)[..., :-1]
        return self.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, width))


class CausalAttention(FusedAttention):
    """A token reads the tokens before it."""

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q, k, v = (t.reshape(batch, tokens, self.heads, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, width))


class RotaryAttention(nn.Module):
    """Grouped queries, two to a key, turned by their position."""

    cos: Tensor
    sin: Tensor

    def __init__(self, width: int, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.q = nn.Linear(width, width, bias=False)
        self.kv = nn.Linear(width, width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        angles = torch.arange(tokens)[:, None] * 0.5 ** torch.arange(self.size // 2)
        self.register_buffer("cos", torch.cat([angles, angles], -1).cos())
        self.register_buffer("sin", torch.cat([angles, angles], -1).sin())

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        q = self.q(x).view(batch, tokens, self.heads, self.size).transpose(1, 2)
        k, v = self.kv(x).view(batch, tokens, self.heads, self.size).transpose(1, 2).chunk(2, 1)
        q, k = self.turned(q), self.turned(k)
        k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).reshape(q.shape) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(batch, tokens, width))

    def turned(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        return x * self.cos + torch.cat([-right, left], -1) * self.sin


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class GatedMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * width)
        self.gate = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class TokenConvolution(nn.Module):
    """Mixes each token with its neighbours, which is not attention."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x.transpose(1, 2)).transpose(1, 2)


class Block(nn.Module):
    def __init__(self, width: int, attention: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width)
        self.mlp = mlp

    def forward(self, x: Tensor, *mask: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x), *mask)
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Positions, pre-norm blocks, and a linear head on ``x [B, N, D]``."""

    def __init__(
        self,
        tokens: int,
        width: int,
        heads: int,
        depth: int = 2,
        attention: Callable[[int, int, int], nn.Module] = FusedAttention,
        mlp: Callable[[int], nn.Module] = Mlp,
    ) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.randn(1, tokens, width))
        self.blocks = nn.ModuleList(Block(width, attention(width, heads, tokens), mlp(width)) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor, *mask: Tensor) -> Tensor:
        x = x + self.position
        for block in self.blocks:
            x = block(x, *mask)
        return self.head(self.norm(x))


class MaskedTextModel(nn.Module):
    """Token ids in, logits out; rotary attention with grouped queries, gated MLPs, scaled by a timestep."""

    def __init__(self, tokens: int, width: int, heads: int, depth: int = 2, vocabulary: int = 7) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.time = nn.Linear(1, 2 * width)
        self.blocks = nn.ModuleList(
            Block(width, RotaryAttention(width, heads, tokens), GatedMlp(width)) for _ in range(depth)
        )
        self.norm = nn.RMSNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, ids: Tensor, time: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            shift, scale = self.time(time[:, None])[:, None].chunk(2, -1)
            x = block(x * (1 + scale) + shift)
        return self.head(self.norm(x))


class PaddedTextModel(nn.Module):
    """Token ids in, of which those that are zero are padding that nobody attends to."""

    def __init__(self, tokens: int, width: int, heads: int, vocabulary: int = 7) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.transformer = Transformer(tokens, width, heads, attention=BiasedAttention)

    def forward(self, ids: Tensor) -> Tensor:
        return self.transformer(self.embedding(ids), ids != 0)


class WithConvolution(nn.Module):
    """Attention around a convolution over tokens, and a summary of all tokens beside the rows."""

    def __init__(self, tokens: int, width: int, heads: int) -> None:
        super().__init__()
        self.first = Block(width, FusedAttention(width, heads, tokens), Mlp(width))
        self.neighbours = TokenConvolution(width)
        self.last = Block(width, FusedAttention(width, heads, tokens), Mlp(width))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.first(x)
        x = self.last(x + self.neighbours(x))
        return x, x.mean(1)


def small_mar(side: int = 3, width: int = 16, buffer: int = 2, depth: int = 2, heads: int = 2) -> MAR:
    """MAR on ``side ** 2`` tokens of four channels."""
    return MAR(
        img_size=2 * side,
        vae_stride=1,
        patch_size=2,
        encoder_embed_dim=width,
        encoder_depth=depth,
        encoder_num_heads=heads,
        decoder_embed_dim=width,
        decoder_depth=depth,
        decoder_num_heads=heads,
        vae_embed_dim=1,
        class_num=3,
        buffer_size=buffer,
        diffloss_d=1,
        diffloss_w=16,
        num_sampling_steps="4",
    )

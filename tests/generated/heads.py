"""Queries, keys and values, and how they are turned by position."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.generated.norms import Cosine
from tests.generated.recipe import Layer, Recipe


class Heads(nn.Module):
    """Queries, keys and values, ``[B, N, H, d]`` or, tokens first, ``[N, B, H, d]``; without H where headless."""

    def __init__(self, recipe: Recipe, layer: Layer) -> None:
        super().__init__()
        width, self.size = recipe.width, recipe.head_width
        self.heads = recipe.heads
        self.key_heads = layer.key_heads or recipe.heads
        self.projection, self.headless = layer.projection, layer.headless
        narrow = self.key_heads * self.size
        if self.projection == "separate":
            self.q, self.k, self.v = nn.Linear(width, width), nn.Linear(width, narrow), nn.Linear(width, narrow)
        elif self.projection == "keys and values":
            self.q, self.kv = nn.Linear(width, width, bias=False), nn.Linear(width, 2 * narrow, bias=False)
        else:
            self.qkv = nn.Linear(width, width + 2 * narrow)
        norms = {"none": nn.Identity, "cosine": Cosine, "rms": nn.RMSNorm, "layer": nn.LayerNorm}
        self.q_norm, self.k_norm = norms[layer.normalized](self.size), norms[layer.normalized](self.size)

    def forward(self, x: Tensor, read: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.project(x, x if read is None else read)
        return self.q_norm(q), self.k_norm(k), v

    def project(self, x: Tensor, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second, _ = x.shape
        if self.projection == "separate":
            flat = self.q(x), self.k(read), self.v(read)
        elif self.projection == "keys and values":
            flat = self.q(x), *self.kv(read).chunk(2, dim=-1)
        elif read is not x:
            narrow = self.key_heads * self.size
            wide = self.heads * self.size
            q = F.linear(x, self.qkv.weight[:wide], self.qkv.bias[:wide])
            flat = q, *F.linear(read, self.qkv.weight[wide:], self.qkv.bias[wide:]).split(narrow, dim=-1)
        elif self.projection == "chunked":
            flat = self.qkv(x).chunk(3, dim=-1)
        elif self.projection == "unbound":
            q, k, v = self.qkv(x).view(first, second, 3, self.heads, self.size).permute(2, 0, 1, 3, 4)
            return q, k, v
        elif self.projection == "interleaved":
            q, k, v = self.qkv(x).view(first, second, self.heads, 3 * self.size).chunk(3, dim=-1)
            return q, k, v
        else:
            narrow = self.key_heads * self.size
            flat = self.qkv(x).split([self.heads * self.size, narrow, narrow], dim=-1)
        q, k, v = flat if self.headless else (t.reshape(*t.shape[:2], -1, self.size) for t in flat)
        return q, k, v


class Rotary(nn.Module):
    """Turns ``[.., N, d]`` by position."""

    cos: Tensor
    sin: Tensor

    def __init__(self, kind: str, size: int, tokens: int) -> None:
        super().__init__()
        self.kind, self.size = kind, size
        if kind == "buffer":
            angles = self.angles(torch.arange(tokens))
            self.register_buffer("cos", torch.cat([angles, angles], -1).cos(), persistent=False)
            self.register_buffer("sin", torch.cat([angles, angles], -1).sin(), persistent=False)

    def angles(self, positions: Tensor) -> Tensor:
        steps = torch.arange(0, self.size, 2, device=positions.device).double() / self.size
        return positions[:, None].double() * 10.0**-steps

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "buffer":
            return self.turned(x, self.cos, self.sin)
        angles = self.angles(torch.arange(x.shape[-2], device=x.device))
        if self.kind == "computed":
            angles = torch.cat([angles, angles], -1)
            return self.turned(x, angles.cos(), angles.sin())
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)

    def turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat([-right, left], -1) * sin

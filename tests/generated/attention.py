"""Attention, fused and written out, with what is added to its scores and who is masked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.generated.heads import Rotary
from tests.generated.recipe import Layer, Recipe


class Bias(nn.Module):
    """What is added to the scores ``[B, H, N, N]``, or ``[B, N, N]`` without heads."""

    index: Tensor

    def __init__(self, kind: str, heads: int, size: int, tokens: int) -> None:
        super().__init__()
        self.kind, self.heads, self.tokens = kind, heads, tokens
        if kind == "table":
            self.table = nn.Parameter(torch.randn(heads, tokens, tokens))
        elif kind == "buckets":
            self.buckets = nn.Embedding(7, heads)
        elif kind == "relative table":
            self.table = nn.Parameter(torch.randn(2 * tokens - 1, heads))
            distance = torch.arange(tokens)[:, None] - torch.arange(tokens)
            self.register_buffer("index", distance + tokens - 1)
        elif kind == "disentangled":
            self.table = nn.Parameter(torch.randn(2 * tokens - 1, size))
        elif kind == "query table":
            self.table = nn.Parameter(torch.randn(tokens, tokens, size))

    def forward(self, q: Tensor, x: Tensor) -> Tensor | None:
        positions = torch.arange(self.tokens, device=q.device)
        distance = positions[None, :] - positions[:, None]
        if self.kind == "table":
            return self.table
        if self.kind == "alibi":
            slopes = 2.0 ** -torch.arange(1, self.heads + 1, device=q.device).double()
            return -slopes[:, None, None] * distance.abs()
        if self.kind == "buckets":
            bucket = torch.where(distance.abs() < 2, distance, distance.sign() * 3) + 3
            return self.buckets(bucket).permute(2, 0, 1).unsqueeze(0)
        if self.kind == "relative table":
            return self.table[self.index.view(-1)].view(self.tokens, self.tokens, -1).permute(2, 0, 1)
        if self.kind == "disentangled":
            return of_queries(q, self.table[distance + self.tokens - 1])
        if self.kind == "query table":
            return of_queries(q, self.table)
        if self.kind == "input":
            return (x[:, :, None, 0] - x[:, None, :, 0]).abs().neg().unsqueeze(1)
        return None


def of_queries(q: Tensor, table: Tensor) -> Tensor:
    """The product of queries and a ``table`` ``[N, N, d]``."""
    return torch.einsum("bid,ijd->bij" if q.ndim == 3 else "bhid,ijd->bhij", q, table)


class Attend(nn.Module):
    """Attention of ``[B, H, N, d]`` and the projection of what it gives."""

    groups: Tensor

    def __init__(self, recipe: Recipe, layer: Layer, tokens: int) -> None:
        super().__init__()
        self.recipe, self.layer = recipe, layer
        self.bias = Bias(layer.bias, recipe.heads, recipe.head_width, tokens)
        self.rotary = nn.Identity() if layer.rotary == "none" else Rotary(layer.rotary, recipe.head_width, tokens)
        self.dropout = nn.Dropout(0.1 if layer.dropout else 0.0)
        if layer.sink == "logit":
            self.sink = nn.Parameter(torch.zeros(recipe.heads))
        elif layer.sink == "key":
            shape = (1, *[layer.key_heads or recipe.heads] * (not layer.headless), 1, recipe.head_width)
            self.sink_key, self.sink_value = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))
        if layer.mask == "groups":
            self.register_buffer("groups", torch.arange(tokens) % 2)

    def forward(self, heads: tuple[Tensor, Tensor, Tensor], x: Tensor, keep: Tensor | None) -> Tensor:
        """Of `Heads`, with the tokens ``x`` ``[B, N, D]`` they are of, or all tokens first."""
        layer, tokens_first = self.layer, self.recipe.tokens_first
        q, k, v = (samples_first(t, tokens_first) for t in heads)
        q, k = self.rotary(q), self.rotary(k)
        bias = self.bias(q, x.transpose(0, 1) if tokens_first else x)
        mask = self.mask(q.shape[-2], keep, x)
        if layer.headless:
            bias, mask = without_heads(bias), without_heads(mask)
        if layer.sink == "key":
            k = torch.cat([self.sink_key.expand(k.shape[0], *self.sink_key.shape[1:]), k], dim=-2)
            v = torch.cat([self.sink_value.expand(v.shape[0], *self.sink_value.shape[1:]), v], dim=-2)
            bias = bias if bias is None else F.pad(bias, (1, 0))
            mask = mask if mask is None else F.pad(mask, (1, 0), value=True)
        sink = self.sink[:, None, None] if layer.sink == "logit" else None
        if not layer.heads_first:
            y = attention(layer, self.recipe.heads, q, k, v, bias, mask, sink)
            return self.dropout(heads_joined(y, tokens_first))
        q, k, v = (t.transpose(0, 1) for t in (q, *(repeated(layer, self.recipe.heads, t) for t in (k, v))))
        bias, mask, sink = (samples_second(t) for t in (bias, mask, sink))
        y = attention(replace(layer, key_heads=0), self.recipe.heads, q, k, v, bias, mask, sink)
        return self.dropout(heads_joined(y.transpose(0, 1), tokens_first))

    def mask(self, tokens: int, keep: Tensor | None, x: Tensor) -> Tensor | None:
        """True where a query ``[.., N, 1]`` attends to a key ``[.., 1, N]``."""
        mask, rank = self.own_mask(tokens, keep, x), self.layer.mask_rank
        if mask is None or rank == 2:
            return mask
        heads = 1 if self.layer.headless else self.recipe.heads
        return mask.expand(heads, -1, -1) if rank == 3 else mask[None, None]

    def own_mask(self, tokens: int, keep: Tensor | None, x: Tensor) -> Tensor | None:
        kind, position = self.layer.mask, torch.arange(tokens, device=x.device)
        if kind == "padding" and keep is not None:
            return keep[:, None, None, :]
        if kind == "padding and causal" and keep is not None:
            return torch.tril(torch.ones(tokens, tokens, dtype=torch.bool)) & keep[:, None, None, :]
        if kind == "causal":
            return position[:, None] >= position[None, :]
        if kind == "window":
            return (position[:, None] - position[None, :]).abs() <= 1
        if kind == "block":
            return (position // 2)[:, None] == (position // 2)[None, :]
        if kind == "groups":
            return self.groups[:, None] == self.groups[None, :]
        if kind == "queries":
            # Tokens of one sign attend to each other.
            x = x.transpose(0, 1) if self.recipe.tokens_first else x
            sign = x[..., 0] > 0
            return (sign[:, :, None] == sign[:, None, :])[:, None]
        return None


def without_heads(x: Tensor | None) -> Tensor | None:
    """A bias or mask ``[B, 1, N, N]`` as ``[B, N, N]``."""
    return x.squeeze(1) if x is not None and x.ndim == 4 else x


def samples_second(x: Tensor | None) -> Tensor | None:
    """A bias or mask ``[B, H, N, N]`` or ``[H, N, N]`` with heads before samples."""
    if x is None or x.ndim < 3:
        return x
    return x.unsqueeze(1) if x.ndim == 3 else x.transpose(0, 1)


def samples_first(x: Tensor, tokens_first: bool) -> Tensor:
    """One of `Heads` as ``[B, H, N, d]``, or ``[B, N, d]`` without heads."""
    if x.ndim == 3:
        return x.transpose(0, 1) if tokens_first else x
    return x.permute((1, 2, 0, 3) if tokens_first else (0, 2, 1, 3))


def heads_joined(y: Tensor, tokens_first: bool) -> Tensor:
    """``[B, N, D]``, or all tokens first, of what `attention` gives."""
    if y.ndim == 3:
        return y.transpose(0, 1) if tokens_first else y
    return y.permute((2, 0, 1, 3) if tokens_first else (0, 2, 1, 3)).flatten(2)


def repeated(layer: Layer, heads: int, x: Tensor) -> Tensor:
    """Keys or values ``[B, G, N, d]`` for every head."""
    if not layer.key_heads:
        return x
    count = heads // x.shape[1]
    if layer.repeat == "interleave":
        return x.repeat_interleave(count, dim=1)
    batch, groups, tokens, size = x.shape
    return x[:, :, None].expand(-1, -1, count, -1, -1).reshape(batch, groups * count, tokens, size)


def attention(
    layer: Layer,
    heads: int,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    sink: Tensor | None = None,
) -> Tensor:
    if layer.repeat == "shared":
        k, v = k[:, 0], v[:, 0]
    elif layer.repeat != "gqa":
        k, v = repeated(layer, heads, k), repeated(layer, heads, v)
    if mask is not None and layer.mask_as == "additive":
        penalty = (1.0 - mask.to(q.dtype)) * -1e9
        bias, mask = penalty if bias is None else bias + penalty, None
    if layer.form == "fused":
        if bias is not None and mask is not None:
            bias = bias.masked_fill(~mask, float("-inf"))
        return F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask if bias is None else bias,
            is_causal=layer.mask == "flag",
            enable_gqa=layer.repeat == "gqa",
        )
    return written_out(layer, q, k, v, bias, mask, sink)


def written_out(
    layer: Layer, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, mask: Tensor | None, sink: Tensor | None
) -> Tensor:
    *outer, queries, size = q.shape
    is_shared = layer.repeat == "shared"
    keys = k.shape[-2]
    letters = "bh"[: len(outer)]
    folded = layer.form in ("bmm", "baddbmm")
    scale = 1 / math.sqrt(size)
    if folded and is_shared:
        q = q.flatten(1, 2)
    elif folded:
        q, k, v = (t.flatten(0, -3) for t in (q, k, v))
    elif is_shared and layer.form == "matmul":
        k, v = k[:, None], v[:, None]
    if layer.form == "baddbmm" and bias is not None and layer.bias != "decay":
        bias = bias.expand(*outer, queries, keys).flatten(0, -3)
        scores = unfolded(torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale), outer)
        bias = None
    elif folded and is_shared:
        scores = (torch.bmm(q, k.transpose(1, 2)) * scale).unflatten(1, (-1, queries))
    elif folded:
        scores = unfolded(torch.bmm(q, k.transpose(1, 2)) * scale, outer)
    elif layer.form == "einsum":
        of_keys = letters[:1] if is_shared else letters
        scores = torch.einsum(f"{letters}id,{of_keys}jd->{letters}ij", q, k) * scale
    else:
        scores = (q * scale) @ k.transpose(-2, -1)
    if layer.cap:
        scores = 2.0 * torch.tanh(scores / 2.0)
    if bias is not None:
        scores = bias + scores if layer.bias_first else scores + bias
    if layer.bias == "decay":
        position = torch.arange(keys, device=q.device)
        distance = (position[queries - keys :, None] - position[None, :]).abs() if queries == keys else position * 0.1
        scores = scores * torch.exp(-distance.double())
    if mask is not None:
        floor = float("-inf")
        scores = scores.masked_fill(~mask, floor) if layer.mask_as == "bool" else torch.where(mask, scores, floor)
    if sink is not None:
        column = sink.expand(*outer, queries, 1)
        weights = torch.cat([scores, column], dim=-1).softmax(dim=-1)[..., :-1]
    else:
        weights = scores.softmax(dim=-1)
    if layer.dropout:
        weights = F.dropout(weights, 0.1, training=False)
    if folded and is_shared:
        return torch.bmm(weights.flatten(1, 2), v).unflatten(1, (-1, queries))
    if folded:
        return unfolded(torch.bmm(weights.flatten(0, -3), v), outer)
    if layer.form == "einsum":
        return torch.einsum(f"{letters}ij,{of_keys}jd->{letters}id", weights, v)
    return weights @ v


def unfolded(x: Tensor, outer: Sequence[int]) -> Tensor:
    """``[B, H, ..]`` of ``[B * H, ..]``."""
    return x if len(outer) == 1 else x.unflatten(0, outer)

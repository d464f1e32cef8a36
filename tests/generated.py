"""Random masked transformers, each described by a `Recipe` that rebuilds it.

``python -m tests.generated --count 5000 --seed 0 --out failures.txt`` tries many.
"""

from __future__ import annotations

import argparse
import gc
import math
import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from hypothesis import strategies as st
from rich.progress import track
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from marche_fx import UnsupportedModelError
from marche_fx.ops import join_positions
from marche_fx.passes.arguments import opened
from tests.oracle import Call, Oracle
from tests.program import Program

VOCABULARY = 7
PADDING = 0
CHANNELS = 3

# ---------------------------------------------------------------------------------------------------------- recipes


class Described:
    """A dataclass whose repr names only what differs from the simplest."""

    def __repr__(self) -> str:
        own: Any = self
        named = [(f, getattr(self, f.name)) for f in fields(own)]
        told = [f"{f.name}={value!r}" for f, value in named if value != f.default]
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True, repr=False)
class Layer(Described):
    """One block of attention and MLP, preceded by an operator that mixes tokens.

    Attributes:
        form: how attention is written. projection: how q, k and v are made. key_heads: heads of k and v, zero for as
            many as q has. repeat: how k and v are given to more heads.
        bias: what is added to the scores, or multiplied with them. mask: who attends to whom. mask_as: how it is used.
        cap: scores capped softly. sink: ``"logit"``, a score for nobody; ``"key"``, learned keys and values.
    """

    norm: str = "layer"
    place: str = "pre"
    form: str = "fused"
    projection: str = "separate"
    key_heads: int = 0
    repeat: str = "expand"
    bias: str = "none"
    mask: str = "none"
    mask_as: str = "bool"
    cap: bool = False
    normalized: str = "none"
    sink: str = "none"
    rotary: str = "none"
    dropout: bool = False
    cross: bool = False
    parallel: bool = False
    mlp: str = "gelu"
    mixer: str = "none"
    modulated: bool = False


@dataclass(frozen=True, repr=False)
class Recipe(Described):
    """A model, what it is called with, and how it decodes.

    Attributes:
        text: tokens of a second stream. split: whether one operator takes the streams apart. context: tokens of a text
            that is attended to. registers: learned tokens before those of the input. padding: what says which are.
        shared: layers run twice. skips: the first layers' results are read by the last. branches: the model looks at
            shapes. given, returned: in what arguments and results come. results: what is returned beside the rows.
        seed: of weights, arguments and active sets.
    """

    layers: tuple[Layer, ...] = (Layer(),)
    samples: int = 2
    tokens: int = 5
    heads: int = 2
    head_width: int = 2
    input: str = "floats"
    position: str = "learned"
    text: int = 0
    split: bool = False
    context: int = 0
    context_mask: bool = False
    registers: int = 0
    padding: str = "none"
    timed: bool = False
    tokens_first: bool = False
    shared: bool = False
    skips: bool = False
    branches: bool = False
    given: str = "tensors"
    returned: str = "tuple"
    results: tuple[str, ...] = ()
    seed: int = 0

    @property
    def width(self) -> int:
        return self.heads * self.head_width

    @property
    def length(self) -> int:
        """Tokens that meet in attention."""
        return self.registers + self.tokens + self.text

    @property
    def attention(self) -> int:
        """Attention sites."""
        return (1 + self.shared) * sum(1 + layer.cross for layer in self.layers)

    @property
    def refusal(self) -> str | None:
        """What `UnsupportedModelError` says of the model; None where it is supported."""
        return None


Choose = Callable[..., Any]
"""Chooses one of its arguments, the simplest first."""


def choose_recipe(choose: Choose) -> Recipe:
    heads = choose(1, 2, 2, 3)
    head_width = choose(2, 2, 4)
    samples = choose(1, 2, 2, 3)
    tokens = choose(2, 3, 4, 5, 6, 7, samples + 1, heads * head_width, heads + 1)
    text = choose(0, 0, 0, 0, 2, 3, tokens)
    recipe = Recipe(
        samples=samples,
        tokens=max(tokens, 2),
        heads=heads,
        head_width=head_width,
        input=choose("floats", "ids", "masked floats", "image"),
        position=choose("none", "learned", "computed"),
        text=text,
        split=bool(text) and choose(False, True),
        context=choose(0, 0, 2, 3, tokens),
        context_mask=choose(False, True),
        registers=0 if text else choose(0, 0, 0, 1, 2),
        padding=choose("none", "input", "ids"),
        timed=choose(False, True),
        tokens_first=choose(False, False, True),
        shared=choose(False, False, False, True),
        branches=choose(False, False, True),
        given=choose("tensors", "keywords", "dict", "tuple", "dataclass"),
        returned=choose("tuple", "dict", "dataclass"),
        results=choose((), (), ("pooled",), ("first",), ("score", "length"), ("hidden", "pooled"), ("softmax",)),
        seed=choose(*range(100)),
    )
    depth = choose(1, 1, 2, 2, 3) if not recipe.shared else choose(1, 1, 2)
    recipe = replace(recipe, layers=tuple(choose_layer(choose) for _ in range(depth)))
    return coherent(replace(recipe, skips=choose(False, True)))


def choose_layer(choose: Choose) -> Layer:
    return Layer(
        norm=choose("layer", "rms", "layer written out", "rms written out", "none"),
        place=choose("pre", "pre", "post", "sandwich"),
        form=choose("fused", "fused", "matmul", "bmm", "baddbmm", "einsum"),
        projection=choose("separate", "chunked", "unbound", "split", "interleaved", "keys and values"),
        key_heads=choose(0, 0, 0, 1, 2),
        repeat=choose("expand", "interleave", "gqa"),
        bias=choose(
            "none", "none", "none", "table", "alibi", "decay", "buckets", "relative table", "disentangled", "input"
        ),
        mask=choose(
            *("none", "none", "none", "padding", "padding", "window", "block", "causal", "flag"),
            *("padding and causal", "groups", "queries"),
        ),
        mask_as=choose("bool", "additive", "where"),
        cap=choose(False, False, False, True),
        normalized=choose("none", "none", "none", "cosine", "rms", "layer"),
        sink=choose("none", "none", "none", "none", "logit", "key"),
        rotary=choose("none", "none", "buffer", "computed", "complex"),
        dropout=choose(False, True),
        cross=choose(False, False, True),
        parallel=choose(False, False, True),
        mlp=choose("gelu", "relu", "split", "swiglu", "experts", "top experts", "none", "convolution"),
        mixer=choose(*["none"] * 14, *MIXERS),
        modulated=choose(False, True),
    )


def coherent(recipe: Recipe) -> Recipe:
    """The recipe without what does not go together."""
    if recipe.padding == "ids" and recipe.input != "ids":
        recipe = replace(recipe, padding="input")
    if recipe.input == "image" and recipe.tokens % 2:
        recipe = replace(recipe, input="floats")
    layers = tuple(coherent_layer(recipe, layer) for layer in recipe.layers)
    if not any("padding" in layer.mask for layer in layers):
        recipe = replace(recipe, padding="none")
    if not any(layer.cross for layer in layers):
        recipe = replace(recipe, context=0)
    if not any(layer.modulated for layer in layers):
        recipe = replace(recipe, timed=False)
    return replace(
        recipe,
        layers=layers,
        skips=recipe.skips and len(layers) > 1,
        context_mask=recipe.context_mask and recipe.context > 0,
    )


def coherent_layer(recipe: Recipe, layer: Layer) -> Layer:
    changed: dict[str, Any] = {}
    if layer.form == "fused":
        changed |= {"cap": False}
        changed |= {"sink": "none"} if layer.sink == "logit" else {}
        changed |= {"bias": "table"} if layer.bias == "decay" else {}
        changed |= {"mask_as": "bool"} if layer.mask_as == "where" else {}
        changed |= {"bias": "none", "sink": "none"} if layer.mask == "flag" else {}
    else:
        changed |= {"mask": "causal"} if layer.mask == "flag" else {}
        changed |= {"repeat": "expand"} if layer.repeat == "gqa" else {}
    if layer.key_heads in (0, recipe.heads) or recipe.heads % layer.key_heads:
        changed |= {"key_heads": 0, "repeat": "expand"}
    elif layer.projection in ("unbound", "interleaved", "chunked"):
        changed |= {"projection": "split"}
    if "padding" in layer.mask and recipe.padding == "none":
        changed |= {"mask": "causal" if "causal" in layer.mask else "none"}
    if changed.get("mask", layer.mask) == "none":
        changed |= {"mask_as": "bool"}
    if recipe.text and layer.mlp == "convolution":
        changed |= {"mlp": "gelu"}
    return replace(
        layer, cross=layer.cross and recipe.context > 0, modulated=layer.modulated and recipe.timed, **changed
    )


def without_gaps(recipe: Recipe) -> Recipe:
    """The recipe without the forms that are known not to be claimed yet."""
    layers = []
    for layer in recipe.layers:
        # A score for nobody that is joined to the scores: cat([scores, sink], -1).softmax(-1)[..., :-1].
        layer = replace(layer, sink="none") if layer.sink == "logit" else layer
        # A product of queries and a table, which is taken for the product of queries and keys where it is added first,
        # and which runs in full.
        layer = replace(layer, bias="table") if layer.bias == "disentangled" else layer
        layers.append(layer)
    if recipe.text:
        # Cross-attention of one stream, whose axis is preferred to that of the joint attention.
        layers = [replace(layer, cross=False) for layer in layers]
    return coherent(replace(recipe, layers=tuple(layers)))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    return without_gaps(choose_recipe(lambda *options: draw(st.sampled_from(options))))


# ---------------------------------------------------------------------------------------------------------- modules


class RmsNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class WrittenLayerNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + 1e-5) * self.weight + self.bias


def make_norm(kind: str, width: int) -> nn.Module:
    return {
        "layer": nn.LayerNorm,
        "rms": nn.RMSNorm,
        "layer written out": WrittenLayerNorm,
        "rms written out": RmsNorm,
        "none": nn.Identity,
    }[kind](width)


class Cosine(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * self.scale


class Heads(nn.Module):
    """Queries, keys and values, ``[B, N, H, d]`` or, tokens first, ``[N, B, H, d]``."""

    def __init__(self, recipe: Recipe, layer: Layer) -> None:
        super().__init__()
        width, self.size = recipe.width, recipe.head_width
        self.heads = recipe.heads
        self.key_heads = layer.key_heads or recipe.heads
        self.projection = layer.projection
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
        q, k, v = (t.reshape(*t.shape[:2], -1, self.size) for t in flat)
        return q, k, v


class Rotary(nn.Module):
    """Turns ``[B, H, N, d]`` by position."""

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
        angles = self.angles(torch.arange(x.shape[2], device=x.device))
        if self.kind == "computed":
            angles = torch.cat([angles, angles], -1)
            return self.turned(x, angles.cos(), angles.sin())
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(3)

    def turned(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        left, right = x.chunk(2, -1)
        return x * cos + torch.cat([-right, left], -1) * sin


class Bias(nn.Module):
    """What is added to the scores ``[B, H, N, N]``."""

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
            return torch.einsum("bhid,ijd->bhij", q, self.table[distance + self.tokens - 1])
        if self.kind == "input":
            return (x[:, :, None, 0] - x[:, None, :, 0]).abs().neg().unsqueeze(1)
        return None


class Attend(nn.Module):
    """Attention of ``[B, H, N, d]`` and the projection of what it gives."""

    groups: Tensor

    def __init__(self, recipe: Recipe, layer: Layer, tokens: int) -> None:
        super().__init__()
        self.recipe, self.layer = recipe, layer
        self.first = int(recipe.tokens_first)
        self.bias = Bias(layer.bias, recipe.heads, recipe.head_width, tokens)
        self.rotary = nn.Identity() if layer.rotary == "none" else Rotary(layer.rotary, recipe.head_width, tokens)
        self.dropout = nn.Dropout(0.1 if layer.dropout else 0.0)
        if layer.sink == "logit":
            self.sink = nn.Parameter(torch.zeros(recipe.heads))
        elif layer.sink == "key":
            shape = (1, layer.key_heads or recipe.heads, 1, recipe.head_width)
            self.sink_key, self.sink_value = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))
        if layer.mask == "groups":
            self.register_buffer("groups", torch.arange(tokens) % 2)

    def forward(self, heads: tuple[Tensor, Tensor, Tensor], x: Tensor, keep: Tensor | None) -> Tensor:
        """Of heads ``[B, N, H, d]``, with the tokens ``x`` ``[B, N, D]`` they are of, or all tokens first."""
        layer, tokens_first = self.layer, self.recipe.tokens_first
        order = (1, 2, 0, 3) if tokens_first else (0, 2, 1, 3)
        q, k, v = (t.permute(order) for t in heads)
        q, k = self.rotary(q), self.rotary(k)
        bias = self.bias(q, x.transpose(0, 1) if tokens_first else x)
        mask = self.mask(q.shape[2], keep, x)
        if layer.sink == "key":
            k = torch.cat([self.sink_key.expand(k.shape[0], -1, -1, -1), k], dim=2)
            v = torch.cat([self.sink_value.expand(v.shape[0], -1, -1, -1), v], dim=2)
            bias = bias if bias is None else F.pad(bias, (1, 0))
            mask = mask if mask is None else F.pad(mask, (1, 0), value=True)
        y = attention(layer, self.recipe.heads, q, k, v, bias, mask, self.sink if layer.sink == "logit" else None)
        back = (2, 0, 1, 3) if tokens_first else (0, 2, 1, 3)
        return self.dropout(y.permute(back).flatten(2))

    def mask(self, tokens: int, keep: Tensor | None, x: Tensor) -> Tensor | None:
        """True where a query ``[.., N, 1]`` attends to a key ``[.., 1, N]``."""
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


def repeated(layer: Layer, heads: int, x: Tensor) -> Tensor:
    """Keys or values ``[B, G, N, d]`` for every head."""
    count = heads // x.shape[1]
    if count == 1:
        return x
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
    if layer.repeat != "gqa":
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
    batch, heads, queries, size = q.shape
    keys = k.shape[2]
    folded = layer.form in ("bmm", "baddbmm")
    scale = 1 / math.sqrt(size)
    if folded:
        q, k, v = (t.reshape(batch * heads, -1, size) for t in (q, k, v))
    if layer.form == "baddbmm" and bias is not None and layer.bias != "decay":
        bias = bias.expand(batch, heads, queries, keys).reshape(batch * heads, queries, keys)
        scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale).view(batch, heads, queries, keys)
        bias = None
    elif folded:
        scores = (torch.bmm(q, k.transpose(1, 2)) * scale).view(batch, heads, queries, keys)
    elif layer.form == "einsum":
        scores = torch.einsum("bhid,bhjd->bhij", q, k) * scale
    else:
        scores = (q * scale) @ k.transpose(-2, -1)
    if layer.cap:
        scores = 2.0 * torch.tanh(scores / 2.0)
    if bias is not None:
        scores = scores + bias
    if layer.bias == "decay":
        position = torch.arange(keys, device=q.device)
        distance = (position[queries - keys :, None] - position[None, :]).abs() if queries == keys else position * 0.1
        scores = scores * torch.exp(-distance.double())
    if mask is not None:
        floor = float("-inf")
        scores = scores.masked_fill(~mask, floor) if layer.mask_as == "bool" else torch.where(mask, scores, floor)
    if sink is not None:
        column = sink[None, :, None, None].expand(batch, -1, queries, -1)
        weights = torch.cat([scores, column], dim=-1).softmax(dim=-1)[..., :-1]
    else:
        weights = scores.softmax(dim=-1)
    if layer.dropout:
        weights = F.dropout(weights, 0.1, training=False)
    if folded:
        y = torch.bmm(weights.view(batch * heads, queries, keys), v)
        return y.view(batch, heads, queries, size)
    return torch.einsum("bhij,bhjd->bhid", weights, v) if layer.form == "einsum" else weights @ v


class Experts(nn.Module):
    """Every expert on every token, weighted by a router."""

    def __init__(self, width: int, chosen: int | None) -> None:
        super().__init__()
        self.chosen = chosen
        self.router = nn.Linear(width, 3)
        self.up = nn.Parameter(torch.randn(3, width, 2 * width))
        self.experts = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.router(x).softmax(dim=-1)
        if self.chosen is not None:
            best, index = weights.topk(self.chosen, dim=-1)
            weights = torch.zeros_like(weights).scatter(-1, index, best / best.sum(-1, keepdim=True))
        hidden = torch.einsum("abc,ecf->abef", x, self.up).relu()
        results = torch.stack([expert(hidden[:, :, number]) for number, expert in enumerate(self.experts)], dim=-2)
        return (results * weights.unsqueeze(-1)).sum(dim=-2)


class Mlp(nn.Module):
    def __init__(self, width: int, kind: str, tokens_first: bool) -> None:
        super().__init__()
        self.kind, self.tokens_first = kind, tokens_first
        if kind == "convolution":
            self.spread, self.gather = nn.Conv1d(width, 2 * width, 1), nn.Conv1d(2 * width, width, 1)
            return
        self.up = nn.Linear(width, 4 * width if kind == "split" else 2 * width)
        self.gate = nn.Linear(width, 2 * width) if kind == "swiglu" else None
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "convolution":
            channels = x.permute(1, 2, 0) if self.tokens_first else x.transpose(1, 2)
            y = self.gather(F.gelu(self.spread(channels)))
            return y.permute(2, 0, 1) if self.tokens_first else y.transpose(1, 2)
        if self.kind == "split":
            value, gate = self.up(x).chunk(2, dim=-1)
            return self.down(value * F.gelu(gate))
        if self.gate is not None:
            return self.down(F.silu(self.gate(x)) * self.up(x))
        return self.down(F.relu(self.up(x)) if self.kind == "relu" else F.gelu(self.up(x), approximate="tanh"))


def make_mlp(recipe: Recipe, kind: str) -> nn.Module | None:
    if kind == "none":
        return None
    if "experts" in kind:
        return Experts(recipe.width, 2 if kind == "top experts" else None)
    return Mlp(recipe.width, kind, recipe.tokens_first)


MIXERS = (
    "convolution",
    "depthwise",
    "mean",
    "squeeze and excite",
    "cumulative",
    "linear",
    "shift",
    "roll",
    "fourier",
    "filter",
    "instance norm",
    "max",
    "softmax",
    "sorted",
    "flip",
)


class Mixer(nn.Module):
    """Mixes tokens ``[B, N, D]`` without being attention."""

    def __init__(self, kind: str, tokens: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "convolution":
            self.convolution = nn.Conv1d(width, width, 3, padding=1)
        elif kind == "depthwise":
            self.convolution = nn.Conv1d(width, width, 3, padding="same", groups=width)
        elif kind == "squeeze and excite":
            self.squeeze, self.excite = nn.Linear(width, 2), nn.Linear(2, width)
        elif kind == "linear":
            self.mix = nn.Linear(tokens, tokens)
        elif kind == "filter":
            self.weight = nn.Parameter(torch.randn(tokens // 2 + 1, width, 2))
        elif kind == "instance norm":
            self.norm = nn.InstanceNorm1d(width, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.shape[1]
        if self.kind in ("convolution", "depthwise"):
            return x + self.convolution(x.transpose(1, 2)).transpose(1, 2)
        if self.kind == "mean":
            return x + x.mean(dim=1, keepdim=True)
        if self.kind == "max":
            return x - x.amax(dim=1).unsqueeze(1).expand_as(x)
        if self.kind == "squeeze and excite":
            return x * self.excite(self.squeeze(x.mean(1)).relu()).sigmoid()[:, None]
        if self.kind == "cumulative":
            return x + x.cumsum(dim=1) / torch.arange(1, tokens + 1, device=x.device)[:, None]
        if self.kind == "linear":
            return x + self.mix(x.transpose(1, 2)).transpose(1, 2)
        if self.kind == "shift":
            previous = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1)
            return torch.lerp(x, previous, 0.3)
        if self.kind == "roll":
            return x + torch.roll(x, 1, dims=1)
        if self.kind == "fourier":
            return x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=1).real
        if self.kind == "filter":
            spectrum = torch.fft.rfft(x, dim=1, norm="ortho") * torch.view_as_complex(self.weight)
            return x + torch.fft.irfft(spectrum, n=tokens, dim=1, norm="ortho")
        if self.kind == "instance norm":
            return self.norm(x.transpose(1, 2)).transpose(1, 2)
        if self.kind == "softmax":
            return x + (x[..., :1].softmax(dim=1) * x).sum(dim=1, keepdim=True)
        if self.kind == "sorted":
            return x + x.sort(dim=1).values
        return x + x.flip(1)


class Stream(nn.Module):
    """What a layer keeps for one stream of tokens: norms, projections, MLP and modulation."""

    def __init__(self, recipe: Recipe, layer: Layer) -> None:
        super().__init__()
        width = recipe.width
        self.layer, self.dim = layer, 0 if recipe.tokens_first else 1
        self.norm1, self.norm2 = make_norm(layer.norm, width), make_norm(layer.norm, width)
        after = layer.norm if layer.place == "sandwich" else "none"
        self.after1, self.after2 = make_norm(after, width), make_norm(after, width)
        self.heads = Heads(recipe, layer)
        self.project = nn.Linear(width, width)
        self.mlp = make_mlp(recipe, layer.mlp)
        self.modulation = nn.Linear(width, 4 * width) if layer.modulated else None

    def enter(self, x: Tensor, time: Tensor | None) -> Tensor:
        x = x if self.layer.place == "post" else self.norm1(x)
        if self.modulation is None or time is None:
            return x
        self_shift, scale, _, _ = self.modulation(time).unsqueeze(self.dim).chunk(4, dim=-1)
        return x * (1 + scale) + self_shift

    def leave(self, x: Tensor, entered: Tensor, attended: Tensor, time: Tensor | None) -> Tensor:
        attended = self.after1(self.project(attended))
        if self.modulation is not None and time is not None:
            _, _, gate, mlp_gate = self.modulation(time).unsqueeze(self.dim).chunk(4, dim=-1)
        else:
            gate = mlp_gate = torch.ones((), dtype=x.dtype)
        post = self.layer.place == "post"
        if self.layer.parallel:
            x = x + gate * attended
            x = x if self.mlp is None else x + mlp_gate * self.mlp(entered)
            return self.norm1(x) if post else x
        x = self.norm1(x + gate * attended) if post else x + gate * attended
        if self.mlp is None:
            return x
        if post:
            return self.norm2(x + mlp_gate * self.mlp(x))
        return x + mlp_gate * self.after2(self.mlp(self.norm2(x)))


class Block(nn.Module):
    def __init__(self, recipe: Recipe, layer: Layer) -> None:
        super().__init__()
        self.layer, self.dim, self.split = layer, 0 if recipe.tokens_first else 1, recipe.split
        own = recipe.registers + recipe.tokens
        self.mixer = None if layer.mixer == "none" else Mixer(layer.mixer, own, recipe.width)
        self.image = Stream(recipe, layer)
        self.text = Stream(recipe, layer) if recipe.text else None
        self.attend = Attend(recipe, layer, recipe.length)
        self.cross = Cross(recipe, layer) if layer.cross else None

    def forward(
        self,
        x: Tensor,
        text: Tensor | None,
        time: Tensor | None,
        keep: Tensor | None,
        context: Tensor | None,
        context_keep: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        if self.mixer is not None:
            x = self.mixer(x.transpose(0, 1)).transpose(0, 1) if self.dim == 0 else self.mixer(x)
        entered = self.image.enter(x, time)
        if self.text is None or text is None:
            x = self.image.leave(x, entered, self.attend(self.image.heads(entered), entered, keep), time)
        else:
            length = x.shape[self.dim]
            text_entered = self.text.enter(text, time)
            pairs = zip(self.image.heads(entered), self.text.heads(text_entered))
            q, k, v = (torch.cat(pair, dim=self.dim) for pair in pairs)
            attended = self.attend((q, k, v), torch.cat([entered, text_entered], dim=self.dim), keep)
            if self.split:
                ours, theirs = attended.split([length, attended.shape[self.dim] - length], dim=self.dim)
            else:
                ours = attended.narrow(self.dim, 0, length)
                theirs = attended.narrow(self.dim, length, attended.shape[self.dim] - length)
            x = self.image.leave(x, entered, ours, time)
            text = self.text.leave(text, text_entered, theirs, time)
        if self.cross is not None and context is not None:
            x = x + self.cross(x, context, context_keep)
        return x, text


class Cross(nn.Module):
    """Attention to a context."""

    def __init__(self, recipe: Recipe, layer: Layer) -> None:
        super().__init__()
        self.layer = replace(layer, bias="none", mask="none", sink="none")
        self.recipe = recipe
        self.norm = make_norm(layer.norm, recipe.width)
        self.heads = Heads(recipe, layer)
        self.project = nn.Linear(recipe.width, recipe.width)

    def forward(self, x: Tensor, context: Tensor, keep: Tensor | None) -> Tensor:
        tokens_first = self.recipe.tokens_first
        order = (1, 2, 0, 3) if tokens_first else (0, 2, 1, 3)
        q, k, v = (t.permute(order) for t in self.heads(self.norm(x), context))
        mask = None if keep is None else keep[:, None, None, :]
        y = attention(self.layer, self.recipe.heads, q, k, v, None, mask)
        return self.project(y.permute((2, 0, 1, 3) if tokens_first else (0, 2, 1, 3)).flatten(2))


@dataclass
class Batch:
    """What a model is called with."""

    tokens: Tensor
    known: Tensor | None = None
    text: Tensor | None = None
    time: Tensor | None = None
    keep: Tensor | None = None
    context: Tensor | None = None
    context_keep: Tensor | None = None


@dataclass
class Results:
    rows: Tensor
    text: Tensor | None = None
    pooled: Tensor | None = None
    first: Tensor | None = None
    score: Tensor | None = None
    length: int | None = None
    hidden: Tensor | None = None
    softmax: Tensor | None = None


class Generated(nn.Module):
    """The model of a recipe."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe, width = recipe, recipe.width
        self.dim = 0 if recipe.tokens_first else 1
        self.embed = nn.Embedding(VOCABULARY, width) if recipe.input == "ids" else nn.Linear(CHANNELS, width)
        if recipe.input == "masked floats":
            self.mask_token = nn.Parameter(torch.zeros(width))
        if recipe.position == "learned":
            self.position = nn.Parameter(torch.zeros(recipe.tokens, width))
        if recipe.text:
            self.embed_text = nn.Linear(CHANNELS, width)
            self.text_head = nn.Linear(width, CHANNELS)
        if recipe.context:
            self.embed_context = nn.Linear(CHANNELS, width)
        if recipe.registers:
            self.registers = nn.Parameter(torch.zeros(recipe.registers, width))
        if recipe.timed:
            self.embed_time = nn.Sequential(nn.Linear(2, width), nn.SiLU())
        self.blocks = nn.ModuleList(Block(recipe, layer) for layer in recipe.layers)
        if recipe.skips:
            self.skips = nn.ModuleList(nn.Linear(2 * width, width) for _ in range(len(recipe.layers) // 2))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, CHANNELS)

    def forward(self, given: Any, **more: Any) -> Any:
        batch = self.opened(given, more)
        x = self.embedded(batch)
        text = None if batch.text is None else self.embed_text(batch.text)
        context = None if batch.context is None else self.embed_context(batch.context)
        time = None
        if batch.time is not None:
            time = self.embed_time(torch.stack([batch.time.cos(), batch.time.sin()], dim=-1))
        keep = self.kept(batch)
        saved: list[Tensor] = []
        hidden = None
        for _ in range(2 if self.recipe.shared else 1):
            saved.clear()
            for number, block in enumerate(self.blocks):
                if self.recipe.skips and number >= len(self.blocks) - len(self.skips):
                    skip = self.skips[number - len(self.blocks) + len(self.skips)]
                    x = skip(torch.cat([x, saved.pop()], dim=-1))
                x, text = block(x, text, time, keep, context, batch.context_keep)
                if self.recipe.skips and number < len(self.skips):
                    saved.append(x)
                hidden = x if hidden is None else hidden
        if self.recipe.branches and x.shape[self.dim] > 3:
            x = x + x.shape[self.dim] / 7
        return self.closed(x, text, hidden)

    def opened(self, given: Any, more: dict[str, Any]) -> Batch:
        if self.recipe.given == "dict":
            return Batch(**given)
        if self.recipe.given == "tuple":
            return Batch(*given)
        return given if self.recipe.given == "dataclass" else Batch(given, **more)

    def embedded(self, batch: Batch) -> Tensor:
        recipe, x = self.recipe, batch.tokens
        if recipe.input == "image":
            x = x.flatten(2).permute(2, 0, 1) if recipe.tokens_first else x.flatten(2).transpose(1, 2)
        x = self.embed(x)
        if batch.known is not None:
            x = torch.where(batch.known[..., None], x, self.mask_token)
        if recipe.position != "none":
            position = self.positions(x)
            x = x + (position[:, None] if recipe.tokens_first else position)
        if recipe.registers:
            if recipe.tokens_first:
                x = torch.cat([self.registers[:, None].expand(-1, x.shape[1], -1), x], dim=0)
            else:
                x = torch.cat([self.registers.expand(x.shape[0], -1, -1), x], dim=1)
        return x

    def positions(self, x: Tensor) -> Tensor:
        if self.recipe.position == "learned":
            return self.position
        angles = torch.arange(self.recipe.tokens, device=x.device)[:, None] / torch.arange(1, x.shape[-1] + 1)
        return angles.sin().to(x.dtype)

    def kept(self, batch: Batch) -> Tensor | None:
        """Bool ``[B, N]``: which of all tokens that meet are no padding."""
        recipe = self.recipe
        if recipe.padding == "none":
            return None
        keep = batch.keep
        if keep is None:
            keep = batch.tokens != PADDING
            keep = keep.transpose(0, 1) if recipe.tokens_first else keep
        parts = [keep]
        if recipe.registers:
            parts.insert(0, keep.new_ones(keep.shape[0], recipe.registers))
        if recipe.text:
            parts.append(torch.ones(keep.shape[0], recipe.text, dtype=torch.bool, device=keep.device))
        return torch.cat(parts, dim=1)

    def closed(self, x: Tensor, text: Tensor | None, hidden: Tensor | None) -> Any:
        recipe = self.recipe
        if recipe.registers:
            x = x[recipe.registers :] if recipe.tokens_first else x[:, recipe.registers :]
        x = self.norm(x)
        rows = self.head(x)
        if recipe.input == "image":
            rows = rows.permute(1, 2, 0) if recipe.tokens_first else rows.transpose(1, 2)
            rows = rows.unflatten(2, (2, -1))
        found: dict[str, Any] = {"rows": rows}
        if text is not None:
            found["text"] = self.text_head(text)
        for name in recipe.results:
            found[name] = {
                "pooled": lambda: x.mean(dim=self.dim),
                "first": lambda: x.select(self.dim, 0),
                "score": lambda: x.square().mean(),
                "length": lambda: x.shape[self.dim],
                "hidden": lambda: hidden,
                "softmax": lambda: self.head(x).softmax(dim=self.dim),
            }[name]()
        if recipe.returned == "dict":
            return found
        if recipe.returned == "dataclass":
            return Results(**found)
        return tuple(found.values()) if len(found) > 1 else rows


def build(recipe: Recipe) -> Generated:
    """The model of ``recipe``, the same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        model = Generated(recipe).double().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                around = 1.0 if parameter.ndim == 1 and (parameter == 1).all() else 0.0
                spread = 0.5 if parameter.ndim == 1 else 1.2 / math.sqrt(parameter.shape[-1])
                parameter.copy_(around + spread * torch.randn(parameter.shape))
    return model


# -------------------------------------------------------------------------------------------------------- decoding

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def make_arguments(recipe: Recipe, generator: Generator) -> Arguments:
    values = {f.name: getattr(batch := make_batch(recipe, generator), f.name) for f in fields(Batch)}
    present = {name: value for name, value in values.items() if value is not None}
    if recipe.given == "dict":
        return (present,), {}
    if recipe.given == "tuple":
        last = max(number for number, value in enumerate(values.values()) if value is not None)
        return (tuple(values.values())[: last + 1],), {}
    if recipe.given == "dataclass":
        return (batch,), {}
    tokens = present.pop("tokens")
    return (tokens,), present


def make_batch(recipe: Recipe, generator: Generator) -> Batch:
    samples, tokens = recipe.samples, recipe.tokens

    def floats(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def flags(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator) > 0.4

    def laid(x: Tensor) -> Tensor:
        return x.transpose(0, 1).contiguous() if recipe.tokens_first else x

    batch = Batch(floats(samples, CHANNELS, 2, tokens // 2) if recipe.input == "image" else torch.empty(0))
    if recipe.input == "ids":
        ids = torch.randint(VOCABULARY, (samples, tokens), generator=generator)
        ids[:, 0] = 1
        batch.tokens = laid(ids)
    elif recipe.input != "image":
        batch.tokens = laid(floats(samples, tokens, CHANNELS))
    if recipe.input == "masked floats":
        batch.known = laid(flags(samples, tokens))
    if recipe.text:
        batch.text = laid(floats(samples, recipe.text, CHANNELS))
    if recipe.timed:
        batch.time = torch.rand(samples, generator=generator, dtype=torch.float64)
    if recipe.padding == "input":
        batch.keep = flags(samples, tokens)
        batch.keep[:, 0] = True
    if recipe.context:
        batch.context = laid(floats(samples, recipe.context, CHANNELS))
    if recipe.context_mask:
        batch.context_keep = flags(samples, recipe.context)
        batch.context_keep[:, 0] = True
    return batch


def active_sets(samples: int, lengths: Sequence[int], generator: Generator) -> Iterator[list[Tensor]]:
    """Of one generation, ``[B, A]`` for each stream: all rows at first and at last, and some steps of any between."""

    def some(length: int) -> Tensor:
        count = int(torch.randint(1, length + 1, (), generator=generator))
        order = torch.rand(samples, length, generator=generator).argsort(-1)
        return order[:, :count]

    every = [torch.arange(length).expand(samples, length) for length in lengths]
    yield every
    active = [positions[:, -1:] for positions in every]
    yield active
    for _ in range(3):
        if torch.rand((), generator=generator) < 0.8:
            active = [some(length) for length in lengths]
        yield active
    yield every


def leaves(tree: Any) -> list[Any]:
    return pytree.tree_leaves(opened(tree))


def relative_error(own: Any, other: Any) -> float:
    if not isinstance(other, Tensor):
        return 0.0 if own == other else float("inf")
    if own.shape != other.shape or own.dtype != other.dtype:
        return float("inf")
    error = (own - other).abs().max() / other.abs().max().clamp(min=1e-12)
    return float(error.nan_to_num(nan=float("inf")))


TOLERANCE = 1e-9


class Decoder(Program):
    """A program whose oracle joins channels."""

    def oracle(self) -> Oracle:
        own = super().oracle()
        return ChannelOracle(own.captured, own.model, own.tokens, own.length, own.on_rows, own.before)


class ChannelOracle(Oracle):
    """Knows that values joined along another dimension than that of tokens keep their rows, and parts of numbers."""

    def learn(self, call: Call) -> None:
        node = call.node
        operands = dict(call.operands())
        known = {place: self.rows[leaf] for place, leaf in operands.items() if leaf in self.rows}
        follows = node.name in self.on_rows and node.name not in self.tokens
        if node.target is torch.ops.aten.cat.default and follows and known:
            joined = call.leaves[-1] if isinstance(call.leaves[-1], int) else 0
            rows = [own.select(joined, 0).unsqueeze(joined) for own in known.values()]
            apart = all((own == one).all() for own, one in zip(known.values(), rows))
            if apart and all(torch.equal(own, rows[0]) for own in rows):
                self.rows[node] = rows[0].expand(call.run().shape)
                self.merged[node] = set()
                return
        if node.target is torch.ops.aten.view_as_real.default and follows and known:
            (rows_of_pairs,) = known.values()
            self.rows[node] = rows_of_pairs.unsqueeze(-1).expand(call.run().shape)
            self.merged[node] = set()
            return
        super().learn(call)


class GeneratedModelError(AssertionError):
    """What went wrong with a model, and the recipe that rebuilds it."""

    def __init__(self, what: str, recipe: Recipe) -> None:
        super().__init__(f"{what}\n{recipe!r}")
        self.what = what


@torch.no_grad()
def check(recipe: Recipe) -> str | None:
    """Rewrite the model of a recipe and decode with it; the message where it is refused, as the recipe says.

    Raises:
        GeneratedModelError: it is refused otherwise, attention was not found, or a step is not what the original or the
            oracle says.
    """
    model = build(recipe)
    args, kwargs = make_arguments(recipe, Generator().manual_seed(recipe.seed))
    try:
        program = Decoder(model, "forward", args, kwargs)
    except UnsupportedModelError as error:
        if recipe.refusal is None or recipe.refusal not in str(error):
            raise GeneratedModelError(f"refused: {error}", recipe) from error
        return str(error)
    found = len(program.plan.sites)
    if found != recipe.attention:
        raise GeneratedModelError(f"{found} attention sites of {recipe.attention}", recipe)
    expected_lengths = sorted([recipe.registers + recipe.tokens, *[recipe.text] * bool(recipe.text)])
    if sorted(program.plan.axes.lengths) not in (expected_lengths, [recipe.length]):
        raise GeneratedModelError(f"streams of {program.plan.axes.lengths} tokens", recipe)
    decode(recipe, model, program)
    return None


def decode(recipe: Recipe, model: nn.Module, program: Decoder) -> None:
    oracle, generator = program.oracle(), Generator().manual_seed(recipe.seed + 1)
    lengths = program.plan.axes.lengths
    arguments = make_arguments(recipe, generator)
    for number, active in enumerate(active_sets(program.plan.samples, lengths, generator)):
        if torch.rand((), generator=generator) < 0.8:
            arguments = make_arguments(recipe, generator)
        inputs = [leaf for leaf in leaves(arguments) if isinstance(leaf, Tensor)]
        results = program.step(inputs, *active)
        counts = [positions.shape[1] for positions in active]
        step = f"in step {number} with {counts} of {lengths} rows"
        # The oracle leaves out plain values.
        pairs = zip(results, oracle.step(inputs, join_positions(active, lengths)), strict=True)
        expected = [other if isinstance(own, Tensor) else own for own, other in pairs]
        compare(results, expected, f"not the oracle's {step}", recipe)
        if counts == list(lengths):
            args, kwargs = arguments
            compare(results, leaves(model(*args, **kwargs)), f"not the original's {step}", recipe)


def compare(results: Sequence[Any], expected: Sequence[Any], what: str, recipe: Recipe) -> None:
    if len(results) != len(expected):
        raise GeneratedModelError(f"{len(results)} results, {len(expected)} expected, {what}", recipe)
    for number, (own, other) in enumerate(zip(results, expected)):
        error = relative_error(own, other)
        if error > TOLERANCE:
            raise GeneratedModelError(f"result {number} off by {error:.0e}, {what}", recipe)


# --------------------------------------------------------------------------------------------------------- searching


def verdict(recipe: Recipe) -> tuple[str, str]:
    """``"passed"``, ``"refused"`` or ``"failed"``, and why."""
    try:
        refused = check(recipe)
    except GeneratedModelError as failure:
        return "failed", failure.what
    except Exception as error:
        frames = [
            frame for frame in traceback.extract_tb(error.__traceback__) if "/site-packages/" not in frame.filename
        ]
        where = " < ".join(f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno}" for frame in frames[:-4:-1])
        return "failed", f"{type(error).__name__} at {where}: {str(error)[:600]}"
    return ("passed", "") if refused is None else ("refused", refused)


def simpler(recipe: Recipe) -> Iterator[Recipe]:
    """Recipes with one thing less."""
    for number in range(len(recipe.layers)):
        if len(recipe.layers) > 1:
            yield coherent(replace(recipe, layers=recipe.layers[:number] + recipe.layers[number + 1 :]))
    for field in fields(Recipe):
        if field.name not in ("layers", "seed") and getattr(recipe, field.name) != field.default:
            changed: dict[str, Any] = {field.name: field.default}
            yield coherent(replace(recipe, **changed))
    for number, layer in enumerate(recipe.layers):
        for field in fields(Layer):
            for value in dict.fromkeys([field.default, "none"]):
                is_choice = value == field.default or (field.name == "mlp" and value == "none")
                if is_choice and getattr(layer, field.name) not in (value, "none" if field.name == "mlp" else value):
                    changed = {field.name: value}
                    layers = (*recipe.layers[:number], replace(layer, **changed), *recipe.layers[number + 1 :])
                    yield coherent(replace(recipe, layers=layers))


def kind_of(why: str) -> str:
    """A failure without its numbers."""
    return why.split(" in step")[0].split(":")[0].split(" off by")[0] + (" oracle" if "oracle" in why else "")


def simplest(recipe: Recipe) -> Recipe:
    """A recipe that fails likewise, with as little as possible."""
    kind = kind_of(verdict(recipe)[1])
    tried = {recipe}
    while True:
        for other in simpler(recipe):
            if other not in tried:
                tried.add(other)
                found, why = verdict(other)
                if found == "failed" and kind_of(why) == kind:
                    recipe = other
                    break
        else:
            return recipe


def main() -> None:
    parser = argparse.ArgumentParser(description="Check random models and write the recipes of those that fail.")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="failures.txt")
    parser.add_argument("--simplify", action="store_true", help="look for a simpler model that fails likewise")
    parser.add_argument("--gaps", action="store_true", help="try also what is known not to be claimed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    verdicts: Counter[str] = Counter()
    refusals: Counter[str] = Counter()
    with open(options.out, "w") as out:
        for number in track(range(options.count), "models"):
            choice = random.Random(f"{options.seed} {number}")
            recipe = choose_recipe(lambda *of, choice=choice: choice.choice(of))
            recipe = recipe if options.gaps else without_gaps(recipe)
            found, why = verdict(recipe)
            verdicts[found] += 1
            if found == "refused":
                refusals[why] += 1
            if found == "failed":
                shown = simplest(recipe) if options.simplify else recipe
                out.write(f"{why}\n{shown!r}\n\n")
                out.flush()
            if number % 50 == 49:
                torch.compiler.reset()
                gc.collect()
    print(", ".join(f"{verdicts[name]} {name}" for name in ("passed", "failed", "refused")))
    for why, times in refusals.most_common():
        print(f"{times} refused: {why}")


if __name__ == "__main__":
    main()

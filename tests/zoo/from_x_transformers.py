"""Models of x-transformers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import nn

from .entry import VOCABULARY, WIDTH, Entry, plain_ids

# What its type hints say of constructors does not hold.
x_transformers: Any = import_module("x_transformers")


def x_encoder(**options: Any) -> Callable[[], nn.Module]:
    return lambda: x_transformers.TransformerWrapper(
        num_tokens=VOCABULARY,
        max_seq_len=64,
        attn_layers=x_transformers.Encoder(dim=WIDTH, depth=2, heads=2, attn_dim_head=8, **options),
    )


ENTRIES = (
    Entry("x-transformers rotary", x_encoder(rotary_pos_emb=True), plain_ids, 2, 2),
    Entry("x-transformers alibi", x_encoder(alibi_pos_bias=True, alibi_num_heads=2), plain_ids, 2, 2),
    Entry("x-transformers relative", x_encoder(rel_pos_bias=True), plain_ids, 2, 2),
    Entry("x-transformers gated, RMS", x_encoder(ff_glu=True, use_rmsnorm=True), plain_ids, 2, 2),
    Entry("x-transformers flash", x_encoder(attn_flash=True), plain_ids, 2, 2),
    Entry("x-transformers flash rotary", x_encoder(attn_flash=True, rotary_pos_emb=True), plain_ids, 2, 2),
    Entry("x-transformers QK norm", x_encoder(attn_qk_norm=True), plain_ids, 2, 2),
)

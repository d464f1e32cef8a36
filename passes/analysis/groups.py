"""Heads of queries that share a head of keys, of which a model makes a copy for each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from ..graph.operands import argument, operands, same_sizes, shape_of
from ..rules.reshapes import RESHAPES
from .attention import AttentionSite

aten = torch.ops.aten


@dataclass(frozen=True)
class SharedKeys:
    """Keys and values of a fused site before they were copied for every head: ``[B, H / groups, 1, N, d]``."""

    k: fx.Node
    v: fx.Node
    groups: int


def find_shared_keys(site: AttentionSite) -> SharedKeys | None:
    """What a fused site's keys and values were before each was copied for the heads that share it, one after another.

    Before:  k = reshape(expand(k_1, [B, H / g, g, N, d]), [B, H, N, d])
    """
    if site.weights is not None or argument(site.node, "enable_gqa"):
        return None
    k, v = uncopied(site.k), uncopied(site.v)
    if k is None or v is None:
        return None
    groups = int(shape_of(site.k)[-3]) // int(shape_of(k)[-4])
    return SharedKeys(k, v, groups) if int(shape_of(site.v)[-3]) == groups * int(shape_of(v)[-4]) else None


def uncopied(node: fx.Node) -> fx.Node | None:
    """``[B, H / g, 1, N, d]`` of a value ``[B, H, N, d]`` that has g copies of each head side by side."""
    if node.target not in RESHAPES:
        return None
    expanded = operands(node)[0]
    if expanded is not None and expanded.target is aten.clone.default:
        expanded = operands(expanded)[0]
    if expanded is None or expanded.target is not aten.expand.default:
        return None
    own = operands(expanded)[0]
    joined, parts = shape_of(node), shape_of(expanded)
    if own is None or [len(joined), len(parts), len(shape_of(own))] != [4, 5, 5]:
        return None
    is_joined = same_sizes([*parts[:-4], parts[-4] * parts[-3], *parts[-2:]], joined)
    # Nothing but the heads that share it is repeated.
    is_alone = same_sizes([*parts[:-3], 1, *parts[-2:]], shape_of(own))
    return own if is_joined and is_alone else None

"""Signals for refresh policies, computed inside the rewritten step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx

from .. import ops
from .attention import AttentionSite
from .axes import TokenAxes
from .cut import Part
from .region import Region
from .rows import streams_of
from .rules import operands, shape_of
from .split import Split

aten = torch.ops.aten


def emit_attention(split: Split, sites: Sequence[AttentionSite], axes: TokenAxes, region: Region) -> Split:
    """Return the attention that queried tokens pay to every key, ``[B, N]``, mean over ``sites``.

    Before:  y = sdpa(q, k_all, v_all);  return ()
    After:   y = sdpa(q, k_all, v_all);  received = attention_received(q, k_all, queried, scale);  return (received,)

    It costs one product of the active queries with all keys a site; the attention itself stays fused.
    """
    if not sites:
        return split
    graph = split.incremental.module.graph
    output = next(node for node in graph.nodes if node.op == "output")
    with graph.inserting_before(output):
        received = [attention_at(graph, site, split, axes, region) for site in sites]
        total = received[0]
        for other in received[1:]:
            total = graph.call_function(aten.add.Tensor, (total, other))
        mean = graph.call_function(aten.div.Scalar, (total, len(received)))
    output.args = ((mean,),)
    split.incremental.module.recompile()
    return replace(split, incremental=Part(split.incremental.module, split.incremental.inputs, (mean,)))


def attention_at(graph: fx.Graph, site: AttentionSite, split: Split, axes: TokenAxes, region: Region) -> fx.Node:
    """The signal of one site, from its copy in the rewritten graph."""
    asked = [split.queried[number] for number in region.rows[site.node].streams]
    queried = asked[0] if len(asked) == 1 else graph.call_function(aten.cat.default, (asked, 1))
    if site.weights is not None:
        received = graph.call_function(ops.mean_over_queried, (split.copies[site.weights], queried))
    else:
        q, k, _, *mask = operands(split.copies[site.node])
        args = (q, k, queried, site.scale, mask[0] if mask else None)
        received = graph.call_function(ops.attention_received, args)
    start = axes.start(streams_of(site.k, site.key_dim, axes))
    end = axes.length - start - int(shape_of(site.k)[site.key_dim])
    if start == end == 0:
        return received
    return graph.call_function(aten.constant_pad_nd.default, (received, [start, end]))


def observable_sites(
    split: Split, sites: Sequence[AttentionSite], axes: TokenAxes, region: Region
) -> list[AttentionSite]:
    """Sites whose scores are ``[B, H, A, N]``: queries are active tokens, and keys are tokens."""
    return [
        site
        for site in sites
        if site.node in split.copies
        and site.node in region.rows
        and site.key_dim in axes.dims.get(site.k, ())
        and has_samples_and_heads(site, region, axes)
    ]


def has_samples_and_heads(site: AttentionSite, region: Region, axes: TokenAxes) -> bool:
    scored = site.weights or site.q
    return len(shape_of(scored)) == 4 and (region.samples == 1 or axes.axes.of(scored, 0) == region.samples_axis)

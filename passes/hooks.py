"""Signals for refresh policies, computed inside the rewritten step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx

from .. import ops
from .attention import AttentionSite
from .rules import operands
from .split import Part, Split

aten = torch.ops.aten


def emit_attention(split: Split, sites: Sequence[AttentionSite]) -> Split:
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
        received = [attention_at(graph, site, split.copies, split.queried) for site in sites]
        total = received[0]
        for other in received[1:]:
            total = graph.call_function(aten.add.Tensor, (total, other))
        mean = graph.call_function(aten.div.Scalar, (total, len(received)))
    output.args = ((mean,),)
    split.incremental.module.recompile()
    return replace(split, incremental=Part(split.incremental.module, split.incremental.inputs, (mean,)))


def attention_at(graph: fx.Graph, site: AttentionSite, copies: dict[fx.Node, fx.Node], queried: fx.Node) -> fx.Node:
    """The signal of one site, from its copy in the rewritten graph."""
    if site.scores is not None:
        return graph.call_function(ops.mean_over_queried, (copies[site.scores], queried))
    attention = copies[site.node]
    q, k, _, *mask = operands(attention)
    return graph.call_function(ops.attention_received, (q, k, queried, site.scale, mask[0] if mask else None))


def observable_sites(split: Split, sites: Sequence[AttentionSite]) -> list[AttentionSite]:
    """Sites whose queries are active tokens in four dimensions ``[B, H, A, d]`` and whose keys are all tokens."""
    cached = {spec.value for spec in split.caches}
    return [
        site for site in sites if site.node in split.copies and site.k in cached and len(site.q.meta["val"].shape) == 4
    ]

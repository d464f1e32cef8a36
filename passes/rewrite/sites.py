"""Say of each node of the region which attention or MLP site it is of, so that a profiler can be told."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from ... import ops
from ..analysis.plan import Plan
from ..graph.reach import ancestors, descendants
from .parts import Split

SITE = "marche_fx_site"
"""Where a node's ``meta`` says it: ``attention at blocks.0.attention``."""


def label_sites(split: Split, plan: Plan) -> None:
    """Label the nodes of every site in the incremental graph, in place.

    Before:  k_all = update_cache(k_cache, k, ...);  y = sdpa(q, k_all, v_all);  h = linear(gelu(linear(z)))
    After:   the same; the updates and sdpa are of an attention, both linears and gelu of an MLP
    """
    for label, nodes in site_nodes(plan):
        for node in nodes:
            if node in split.copies:
                split.copies[node].meta[SITE] = label
    for node in reversed(split.incremental.module.graph.find_nodes(op="call_function", target=ops.update_cache)):
        readers = [user.meta[SITE] for user in node.users if SITE in user.meta]
        if readers:
            node.meta[SITE] = readers[0]


def site_nodes(plan: Plan) -> Iterator[tuple[str, set[fx.Node]]]:
    """Every site with its nodes in the captured graph: what is computed from its operands up to its result."""
    for site in plan.sites:
        operands = {site.q, site.k, site.v}
        yield f"attention at {site.path}", (descendants(operands) & ancestors([site.node])) - operands
    for mlp in plan.mlps:
        yield f"MLP at {mlp.path}", descendants(mlp.up) & ancestors([mlp.down])

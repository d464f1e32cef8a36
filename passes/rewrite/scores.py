"""Where samples, queries and keys stand in the scores of an attention, so that they can be observed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from ..analysis.attention import AttentionSite
from ..analysis.groups import find_shared_keys
from ..analysis.layout import Layout
from ..analysis.plan import Plan
from ..graph.operands import argument, operands, shape_of
from ..rules.table import dim_map


@dataclass(frozen=True)
class Scores:
    """The weights of a written-out site or the queries of a fused one, with samples in a dimension of their own.

    Attributes:
        node: its rows are queries. layout: where samples and queries stand; what else it has are heads and copies.
        key_dim: of weights, in the layout's shape. groups: heads of queries for each head of keys, of a fused site.
    """

    node: fx.Node
    layout: Layout
    key_dim: int = -1
    groups: int = 1


def find_scores(site: AttentionSite, plan: Plan, copies: Mapping[fx.Node, fx.Node]) -> Scores | str:
    """The scores of a site, or in words why they cannot be observed.

    Args:
        copies: of values that the rewritten step computes on rows, their counterparts there.
    """
    node = site.weights or site.q
    if node not in plan.region.rows or node not in copies:
        return "its scores are computed of all tokens, not of active rows"
    if site.weights is not None:
        return weights_of(site, site.weights, plan)
    return queries_of(site, plan, shares_keys=argument(copies[site.node], "enable_gqa"))


def weights_of(site: AttentionSite, weights: fx.Node, plan: Plan) -> Scores | str:
    """The scores of a written-out site."""
    own, index, layout = dim_map(site.node), operands(site.node).index(weights), plan.region.layouts[weights]
    keys = [dim for dim in range(len(shape_of(weights))) if (index, dim) not in own.output]
    counts = [count for count in layout.joined if count]
    if len(keys) != 1 or counts[keys[0]] != 1 or keys[0] == plan.region.rows[weights].dim:
        return "its weights have no dimension for keys alone"
    return Scores(weights, layout, key_dim=sum(counts[: keys[0]]) + layout.joined.count(0))


def queries_of(site: AttentionSite, plan: Plan, *, shares_keys: bool) -> Scores | str:
    """The scores of a fused site, which are computed once more of its queries and keys.

    Args:
        shares_keys: whether the rewritten attention has fewer heads of keys than of queries.
    """
    rows, layout = plan.region.rows[site.q], plan.region.layouts[site.q]
    if rows != plan.region.rows.get(site.node) or shape_of(site.q)[:-1] != shape_of(site.node)[:-1]:
        return "its queries are not one for each row that it gives"
    if rows.dim != len(shape_of(site.q)) - 2 or layout.joined[-1] != 1:
        return "its queries share a dimension with its channels"
    if not shares_keys:
        return Scores(site.q, layout)
    shared = find_shared_keys(site)
    if layout.joined[-3] != 1:
        return "its heads, of which several share a key, share a dimension with samples"
    keys = int(shape_of(site.k)[-3]) if shared is None else int(shape_of(shared.k)[-4])
    return Scores(site.q, layout, groups=int(shape_of(site.q)[-3]) // keys)

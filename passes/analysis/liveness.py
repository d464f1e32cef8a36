"""Find what needs no row of a token that nobody reads."""

from __future__ import annotations

from torch import fx

from ..graph.operands import operands
from .region import Region


def find_read_only(graph: fx.Graph, region: Region) -> frozenset[fx.Node]:
    """Values on rows that reach a result only by rows of their own token, so that rows which nobody reads are dead.

    Before the last attention every row is live: others read its key and value. After it no token reads another.

    Before:  y = sdpa(q, k, v);  z = mlp(y);  return z      all for the active tokens
    After:   k and v for the active tokens, and q, y and z for those of them that are read
    """
    live: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node in region.rows and any(is_live(node, user, region, live) for user in node.users):
            live.add(node)
    return frozenset(node for node in region.rows if node not in live and node not in region.sources)


def is_live(node: fx.Node, user: fx.Node, region: Region, live: set[fx.Node]) -> bool:
    """Whether ``user`` needs rows of ``node`` for other tokens, or for rows that are live themselves."""
    if user in region.full:
        return True
    if user not in region.rows:
        return False
    mixes = any(not region.follows(user, index) for index, own in enumerate(operands(user)) if own is node)
    return mixes or user in live

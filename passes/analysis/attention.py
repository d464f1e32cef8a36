"""Find attention: by dataflow alone, fused or written out, never by the names of modules."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import fx

from ..graph.operands import argument, operands, shape_of
from ..graph.source import module_path, source_line
from ..rules.table import dim_map
from .dimensions import Axes, Axis, Dimension

aten = torch.ops.aten

FUSED = (aten.scaled_dot_product_attention.default,)
SOFTMAX = (aten.softmax.int, aten._softmax.default, aten._safe_softmax.default)
CONTRACTIONS = (
    aten.matmul.default,
    aten.mm.default,
    aten.bmm.default,
    aten.baddbmm.default,
    aten.einsum.default,
)


@dataclass(frozen=True)
class AttentionSite:
    """One call of attention: ``q [..., H, N, d]``, ``k [..., H, M, d]``, ``v [..., H, M, d]``.

    Attributes:
        node: the node whose value is the attention's output. weights: what a written-out site multiplies v with.
        query: the node and the dimension of it that indexes queries; key likewise, along which the site mixes.
        product: the contraction of q and k of a written-out site, its dimension that indexes queries beside it.
        mask: additive or boolean mask of a fused site. scale: of a fused site, 1 / sqrt(d) unless it was given.
    """

    node: fx.Node
    q: fx.Node
    k: fx.Node
    v: fx.Node
    query_dim: int
    key_dim: int
    weights: fx.Node | None = None
    product: fx.Node | None = None
    product_query_dim: int = -2
    mask: fx.Node | None = None
    causal: bool = False
    scale: float = 1.0

    @property
    def heads(self) -> int:
        shape = shape_of(self.q)
        # [B, H, N, d] or [B, N, H, d]
        return int(shape[3 - self.query_dim]) if len(shape) == 4 and self.query_dim in (1, 2) else 1

    @property
    def head_width(self) -> int:
        return int(shape_of(self.q)[-1])

    @property
    def path(self) -> str:
        return module_path(self.node)

    @property
    def line(self) -> str:
        return source_line(self.node)


def find_attention_sites(graph: fx.Graph, axes: Axes | None = None) -> list[AttentionSite]:
    """Every attention of ``graph`` in the order of execution.

    Fused:        y = scaled_dot_product_attention(q, k, v, mask)
    Written out:  s = matmul(q, k_t);  w = softmax(add(mul(s, scale), bias), -1);  y = matmul(w, v)

    Between the contractions and the softmax may stand any chain that keeps the key axis: scale, bias, mask, soft-cap.
    Sinks, columns of scores joined to those of keys, may be joined before the softmax and cut off after it.

    Args:
        axes: of the graph, if they are known.
    """
    axes = Axes(graph) if axes is None else axes
    sites = []
    for node in graph.nodes:
        if node.target in FUSED:
            sites.append(fused_site(node))
        elif node.target in SOFTMAX:
            site = written_out_site(node, axes)
            if site is not None:
                sites.append(site)
    return sites


def fused_site(node: fx.Node) -> AttentionSite:
    q, k, v, mask = operands(node)
    assert q is not None
    assert k is not None
    assert v is not None
    rank = len(shape_of(q))
    scale = argument(node, "scale")
    return AttentionSite(
        node=node,
        q=q,
        k=k,
        v=v,
        query_dim=rank - 2,
        key_dim=rank - 2,
        mask=mask,
        causal=bool(argument(node, "is_causal")),
        scale=1 / math.sqrt(int(shape_of(q)[-1])) if scale is None else float(scale),
    )


def written_out_site(softmax: fx.Node, axes: Axes) -> AttentionSite | None:
    """The site around a softmax, or None where it is not between two contractions over its dimension."""
    key_dim = argument(softmax, "dim") % len(shape_of(softmax))
    output = next(contractions_below(softmax, key_dim), None)
    if output is None:
        return None
    # A bias may be a product too, but not one of queries and keys: of queries and a table with other keys for each.
    products = [*contractions_above(softmax, key_dim)]
    found = [site for product, dim in products if (site := site_of(product, dim, *output, axes)) is not None]
    return min(found, key=lambda site: (not shares_keys(site, axes), not has_keys_of_values(site, axes)), default=None)


def shares_keys(site: AttentionSite, axes: Axes) -> bool:
    """Whether queries that have weights of their own have none of their own keys."""
    assert site.product is not None
    assert site.weights is not None
    own, index = dim_map(site.product), operands(site.product).index(site.k)
    weighing = weighing_dims(site.product, site.node, site.weights, axes)
    return weighing.isdisjoint(out for (i, dim), out in own.output.items() if i == index and dim != site.key_dim)


def has_keys_of_values(site: AttentionSite, axes: Axes) -> bool:
    """Whether what else tells keys apart, as samples and heads, tells values apart too: a table has keys by queries."""
    assert site.product is not None
    of_keys = kept_axes(site.product, site.k, axes, but=site.key_dim)
    return of_keys <= kept_axes(site.node, site.v, axes)


def kept_axes(contraction: fx.Node, operand: fx.Node, axes: Axes, but: int | None = None) -> set[Axis]:
    """The axes of a factor of a contraction that the result has, ``but`` one."""
    own, index = dim_map(contraction), operands(contraction).index(operand)
    kept = {axes.of(operand, dim) for at, dim in own.output if at == index and dim != but}
    return {factor for axis in kept for factor in axes.factors(axis)}


def site_of(
    product: fx.Node, product_key_dim: int, result: fx.Node, weights: fx.Node, axes: Axes
) -> AttentionSite | None:
    """The site with the scores ``product`` and the output ``result``, or None where it is no product of q and k."""
    own = dim_map(product)
    weighing = weighing_dims(product, result, weights, axes)
    first, second = contracted_operands(product)
    # The operand that brings the key axis is k, the other q.
    for (q_index, q), (k_index, k) in ((first, second), (second, first)):
        key_dims = [dim for (index, dim), out in own.output.items() if index == k_index and out == product_key_dim]
        from_k = {out for (index, _), out in own.output.items() if index == k_index}
        query_dims = [dim for (index, dim), out in own.output.items() if index == q_index and out not in from_k]
        # Queries have weights of their own. Without heads, queries times a table of every pair look like one attention
        # per position over the samples, until the values, of which every sample has its own, are seen; and what an
        # earlier attention gave, of which a mask or bias is made, has the keys' dimension but channels beside it.
        query_dims = [dim for dim in query_dims if own.output[q_index, dim] in weighing]
        query_dim = one_of_queries(q, query_dims, (k, key_dims[0]), axes) if key_dims else None
        if query_dim is not None:
            return AttentionSite(
                node=result,
                q=q,
                k=k,
                v=next(operand for _, operand in contracted_operands(result) if operand is not weights),
                query_dim=query_dim,
                key_dim=key_dims[0],
                weights=weights,
                product=product,
                product_query_dim=own.output[q_index, query_dim],
            )
    return None


def one_of_queries(q: fx.Node, dims: list[int], keys: Dimension, axes: Axes) -> int | None:
    """Of the dimensions of ``q`` that have weights of their own the one of queries; None where it cannot be told.

    Heads that share their keys, ``q [B, H, N, d]`` and ``k [B, N, d]``, have them too. Queries are those that are the
    keys' tokens, or else those that were not cut from channels.
    """
    if len(dims) < 2:
        return dims[0] if dims else None
    tokens = [dim for dim in dims if axes.of(q, dim) in axes.with_parts(axes.of(*keys))]
    uncut = [dim for dim in dims if not is_cut_from_channels(q, dim, axes)]
    return next((own[0] for own in (tokens, uncut) if len(own) == 1), None)


def is_cut_from_channels(q: fx.Node, dim: int, axes: Axes) -> bool:
    """Whether a dimension of ``q [.., d]`` and its channels were one dimension, as heads and channels are."""
    return axes.share_product(axes.of(q, dim), axes.of(q, len(shape_of(q)) - 1))


def weighing_dims(product: fx.Node, result: fx.Node, weights: fx.Node, axes: Axes) -> set[int]:
    """Dimensions of ``product`` that ``result`` has from the weights but not from v, as it has samples and heads."""
    own = dim_map(result)
    (first, _), (second, _) = contracted_operands(result)
    weighing, v = (first, second) if operands(result)[first] is weights else (second, first)
    from_v = {out for (index, _), out in own.output.items() if index == v}
    alone = {axes.of(result, out) for (index, _), out in own.output.items() if index == weighing and out not in from_v}
    alone |= {factor for axis in alone for factor in axes.factors(axis)}
    return {dim for dim in range(len(shape_of(product))) if axes.of(product, dim) in alone}


def contracted_operands(node: fx.Node) -> list[tuple[int, fx.Node]]:
    """The two factors of a contraction with their operand numbers."""
    found = [(index, operand) for index, operand in enumerate(operands(node)) if operand is not None]
    return found[-2:]


def contractions_above(node: fx.Node, dim: int) -> Iterator[tuple[fx.Node, int]]:
    """Contractions that ``node`` is computed from without mixing its dimension ``dim``, and what it is there.

    A mask that says which scores count is none of them, whatever it was made of.
    """
    # Many paths may lead to one value, through residuals.
    seen: set[tuple[fx.Node, int]] = set()
    pending = [*sources_along(node, dim)][::-1]
    while pending:
        place = pending.pop()
        if place in seen:
            continue
        seen.add(place)
        if place[0].target in CONTRACTIONS:
            yield place
        else:
            pending += [*sources_along(*place)][::-1]


def sources_along(node: fx.Node, dim: int) -> Iterator[tuple[fx.Node, int]]:
    """Operands of ``node`` with the dimension that is its ``dim``, or that is joined to others there."""
    if node.op != "call_function":
        return
    joins = node.target is aten.cat.default and argument(node, "dim") % len(shape_of(node)) == dim
    own = dim_map(node)
    for index, operand in enumerate(operands(node)):
        if operand is not None and getattr(operand.meta["val"], "dtype", None) is not torch.bool:
            for operand_dim in range(len(shape_of(operand))):
                if own.output.get((index, operand_dim)) == dim or (joins and operand_dim == dim):
                    yield operand, operand_dim


def contractions_below(node: fx.Node, dim: int) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Contractions over dimension ``dim`` of ``node`` or of what is computed from it, each with that factor."""
    seen: set[tuple[fx.Node, int]] = set()
    pending = [(node, dim)]
    while pending:
        factor, own_dim = pending.pop()
        if (factor, own_dim) in seen:
            continue
        seen.add((factor, own_dim))
        after: list[tuple[fx.Node, int]] = []
        for user in factor.users:
            if user.op != "call_function":
                continue
            own = dim_map(user)
            for index in [number for number, operand in enumerate(operands(user)) if operand is factor]:
                place = (index, own_dim)
                if user.target in CONTRACTIONS and place in own.mixed and place not in own.output:
                    yield user, factor
                elif place in own.output and place not in own.mixed:
                    after.append((user, own.output[place]))
                elif user.target is aten.slice.Tensor and argument(user, "dim") % len(shape_of(factor)) == own_dim:
                    after.append((user, own_dim))
        pending += after[::-1]

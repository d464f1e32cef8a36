"""Which values say whom each token attends to, so that rows that nothing new can reach are known to be exact."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from ..graph.operands import shape_of
from .plan import Plan


@dataclass(frozen=True)
class Sight:
    """Of every attention among tokens its mask, known before the region runs.

    Attributes:
        masks: bool or additive, each with the shape that it broadcasts to, ``[B, .., N, N]``.
        causal: whether some attention lets a token see those before it, and itself. hops: attentions in a row, so far
            may what one token holds travel in a step.
    """

    masks: tuple[tuple[fx.Node, tuple[int, ...]], ...]
    causal: bool
    hops: int


def find_sight(plan: Plan) -> Sight | None:
    """The masks of a step; None where some token may read every other, or it is not known which.

    Only fused attention over one stream of tokens is looked at, ``[B, .., N, d]``, in steps that drop no tokens and in
    which nothing else mixes them.
    """
    region, axes = plan.region, plan.axes
    if plan.visible is not None or len(axes.streams) != 1 or region.full:
        return None
    # What enters the region is compared from step to step: what attention before it gives, and keys of a context.
    sites = [site for site in plan.sites if not (region.is_before(site.node) or region.is_before(site.k))]
    masks: dict[fx.Node, tuple[int, ...]] = {}
    for site in sites:
        shape, layout = shape_of(site.q), region.layouts.get(site.q)
        if layout is None:
            return None
        is_plain = layout.is_plain and (layout.batch_dim, layout.token_dim) == (0, len(shape) - 2)
        if site.weights is not None or not is_plain or axes.dims.get(site.k) != (len(shape_of(site.k)) - 2,):
            return None
        if site.causal:
            continue
        if site.mask is None or not region.is_before(site.mask) or len(shape_of(site.mask)) < 2:
            return None
        if shape_of(site.mask)[-2:] != (axes.length, axes.length):
            return None
        masks[site.mask] = (*shape[:-2], axes.length, axes.length)
    if not sites:
        return None
    return Sight(tuple(masks.items()), any(site.causal for site in sites), len(sites))

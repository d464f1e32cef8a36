"""What a search for a recipe may put together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from types import NoneType

from ..checks import check_count, check_kind, check_sequence, check_word
from ..denoising import Denoising
from ..errors import ArgumentError
from ..head.policy import HeadReuse, Interpolate
from ..orders import COUNTS, ORDERS
from ..recipes import Recipe
from ..refresh import FullRefresh, RefreshPolicy, SelectiveRefresh, StalenessRefresh

SHARES = (1.0, 0.5, 0.375, 0.25)
"""Of the decoding steps of the original."""


@dataclass(frozen=True)
class Ingredients:
    """Choices for each part of a recipe, of which every search also has what the original does.

    Attributes:
        steps: decoding steps. refresh: policies. denoising, reuse: of the head; None is its own. orders, counts: by
            name; None is the loop's own.
    """

    steps: Sequence[int] = ()
    refresh: Sequence[RefreshPolicy] = ()
    denoising: Sequence[Denoising | None] = ()
    reuse: Sequence[HeadReuse | None] = ()
    orders: Sequence[str | None] = ()
    counts: Sequence[str | None] = ()

    def __post_init__(self) -> None:
        for own in fields(self):
            check_sequence(own.name, getattr(self, own.name))
        for count in self.steps:
            check_count("steps", count, least=1)
        for policy in self.refresh:
            check_kind("refresh", policy, RefreshPolicy)
        for name, kind in (("denoising", Denoising), ("reuse", HeadReuse)):
            for given in getattr(self, name):
                check_kind(name, given, kind, NoneType)
        for name, known in (("orders", ORDERS), ("counts", COUNTS)):
            for word in getattr(self, name):
                if word is not None:
                    check_word(name, word, known)

    def heads(self, base: Recipe) -> list[Recipe]:
        """``base`` with every denoising and reuse, itself first; those of no use together are left out."""
        denoising, reuse = with_first(base.denoising, self.denoising), with_first(base.reuse, self.reuse)
        return [replace(base, denoising=own, reuse=other) for own, other in itertools.product(denoising, reuse)]

    def policies(self, base: Recipe) -> list[RefreshPolicy]:
        return with_first(base.refresh, self.refresh)

    def middle_steps(self, base: Recipe) -> int | None:
        """The middle one of the numbers of decoding steps, to look at policies in; None for the loop's own."""
        every = sorted(own for own in with_first(base.steps, self.steps) if own is not None)
        return every[len(every) // 2] if every else None

    def mixed(self, base: Recipe, policies: Sequence[RefreshPolicy], heads: Sequence[Recipe]) -> list[Recipe]:
        """Every mix of these policies and heads with all steps, orders and counts."""
        steps = with_first(base.steps, self.steps)
        loops = itertools.product(steps, with_first(base.order, self.orders), with_first(base.counts, self.counts))
        return [
            replace(head, refresh=policy, steps=count, order=order, counts=own)
            for (count, order, own), policy, head in itertools.product(loops, policies, heads)
        ]


def with_first(own: object, others: Sequence[object]) -> list:
    """The original's choice, then the others, each once."""
    return [own, *(other for other in others if other != own)]


def usual_ingredients(base: Recipe, *, has_head: bool, takes_orders: bool) -> Ingredients:
    """What is tried where nothing else is said, for an original that decodes as ``base`` says.

    Args:
        has_head: whether it has a diffusion head. takes_orders: whether its loop is known to take an order.

    Raises:
        ArgumentError: it does not say in how many steps.
    """
    if base.steps is None:
        raise ArgumentError("a search for a recipe needs the original's decoding steps: base=Recipe(steps=...)")
    loose = [SelectiveRefresh(share, warmup=1, tolerance=0.3) for share in (0.0, 0.05, 0.1, 0.2)]
    policies = [*loose, *(SelectiveRefresh(share) for share in (0.1, 0.2)), StalenessRefresh(0.1, warmup=1)]
    fewer = [Denoising(count, "quadratic") for count in (8, 10, 15, 25)]
    part = [Denoising(count, "quadratic", guidance=(0.1, 1.0)) for count in (10, 25)]
    return Ingredients(
        steps=[max(1, round(share * base.steps)) for share in SHARES],
        refresh=[FullRefresh(), *policies],
        denoising=[Denoising(25), *fewer, *part] if has_head else (),
        reuse=[HeadReuse(), HeadReuse(Interpolate(5), guidance=2), HeadReuse(Interpolate(20), guidance=4)]
        if has_head
        else (),
        orders=["halton"] if takes_orders else (),
    )

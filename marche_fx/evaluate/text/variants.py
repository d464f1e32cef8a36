"""What is compared, by name: policies with what they are told to be read, and fewer steps.

One more is one more line. Each loop has a policy of its own.
"""

from __future__ import annotations

from ...refresh import (
    FullRefresh,
    InterleavedRefresh,
    NeighbourRefresh,
    RandomRefresh,
    SelectiveRefresh,
    StalenessRefresh,
)
from ..study import ORIGINAL, DualCache, MaxLogitCache, NewestRefresh, Query, ValueCache, Variant
from .loops import Loop


def masked_in_block(loop: Loop, mask_id: int) -> Query:
    return loop.masked_in_block(mask_id)


def in_block(loop: Loop, mask_id: int) -> Query:
    return loop.in_block(mask_id)


VARIANTS: dict[str, Variant[Loop]] = {
    ORIGINAL: Variant(),
    "exact": Variant(lambda loop: FullRefresh()),
    "half the steps": Variant(fewer=2),
    "a quarter of the steps": Variant(fewer=4),
    "default": Variant(lambda loop: SelectiveRefresh()),
    "default, query=": Variant(lambda loop: SelectiveRefresh(), masked_in_block),
    "selective 5%": Variant(lambda loop: SelectiveRefresh(0.05)),
    "selective 25%": Variant(lambda loop: SelectiveRefresh(0.25)),
    "neighbours 5%": Variant(lambda loop: NeighbourRefresh(0.05, grid="line", radius=4.0)),
    "neighbours 10%": Variant(lambda loop: NeighbourRefresh(0.1, grid="line", radius=4.0)),
    "neighbours 5%, bounded": Variant(lambda loop: NeighbourRefresh(0.05, grid="line", radius=4.0, queried=0.1)),
    "neighbours 5%, tighter": Variant(
        lambda loop: NeighbourRefresh(0.05, warmup=2, grid="line", radius=4.0, queried=0.08)
    ),
    "selective 5%, bounded": Variant(lambda loop: SelectiveRefresh(0.05, queried=0.1)),
    "oldest 10%": Variant(lambda loop: StalenessRefresh(0.1)),
    "random 10%": Variant(lambda loop: RandomRefresh(0.1)),
    "interleaved": Variant(lambda loop: InterleavedRefresh()),
    "blocks in full": Variant(lambda loop: SelectiveRefresh(0.0, warmup=1, every=loop.steps)),
    "blocks in full, 1%": Variant(lambda loop: SelectiveRefresh(0.01, warmup=1, every=loop.steps)),
    "blocks in full, 5%": Variant(lambda loop: SelectiveRefresh(0.05, warmup=1, every=loop.steps)),
    "blocks in full, newest": Variant(lambda loop: NewestRefresh(loop.steps)),
    "Fast-dLLM dual cache": Variant(lambda loop: DualCache(loop.steps), in_block),
    "dLLM-Cache": Variant(lambda loop: ValueCache(loop.prompt), whole=True),
    "ML-Cache": Variant(lambda loop: MaxLogitCache(loop.calls), whole=True),
}

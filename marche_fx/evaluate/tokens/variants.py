"""What is compared, by name: policies and fewer steps. One more is one more line."""

from __future__ import annotations

from ...models.tokens.tokenizer import SIDE
from ...refresh import (
    FullRefresh,
    InterleavedRefresh,
    NeighbourRefresh,
    RandomRefresh,
    SelectiveRefresh,
    StalenessRefresh,
)
from ..study import ORIGINAL, MaxLogitCache, ValueCache, Variant
from .loops import GarmentLoop

GRID = SIDE, SIDE

VARIANTS: dict[str, Variant[GarmentLoop]] = {
    ORIGINAL: Variant(),
    "exact": Variant(lambda loop: FullRefresh()),
    "half the steps": Variant(fewer=2),
    "a quarter of the steps": Variant(fewer=4),
    "an eighth of the steps": Variant(fewer=8),
    "default": Variant(lambda loop: SelectiveRefresh()),
    "masks alone": Variant(lambda loop: SelectiveRefresh(0.0, warmup=1)),
    "selective 5%, bounded": Variant(lambda loop: SelectiveRefresh(0.05, queried=0.1)),
    "oldest 5%, bounded": Variant(lambda loop: StalenessRefresh(0.05, queried=0.1)),
    "random 5%, bounded": Variant(lambda loop: RandomRefresh(0.05, queried=0.1)),
    "neighbours 5%, bounded": Variant(lambda loop: NeighbourRefresh(0.05, grid=GRID, queried=0.1)),
    "neighbours 5%, tighter": Variant(lambda loop: NeighbourRefresh(0.05, grid=GRID, queried=0.05)),
    "bounded, one in full": Variant(lambda loop: NeighbourRefresh(0.05, 1, grid=GRID, queried=0.1)),
    "tighter, 8th in full": Variant(lambda loop: NeighbourRefresh(0.05, 1, 8, grid=GRID, queried=0.05)),
    "interleaved": Variant(lambda loop: InterleavedRefresh()),
    "dLLM-Cache": Variant(lambda loop: ValueCache(), whole=True),
    "ML-Cache": Variant(lambda loop: MaxLogitCache(loop.calls), whole=True),
}

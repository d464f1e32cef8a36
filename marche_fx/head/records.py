"""What a head computed, and when."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

KEPT = 256
"""Denoisings that are told of."""


@dataclass
class DenoisingRecord:
    """One denoising.

    Attributes:
        rows: R. calls: a letter each: ``F`` where all rows were computed, ``c`` where those of the conditional half
            alone were; with residual branches held ``H`` and ``h``.
        slow: at how many timesteps values of time and condition were computed.
        flops: of products. original: what the original would have computed.
    """

    rows: int
    calls: str = ""
    slow: int = 0
    flops: float = 0.0
    original: float = 0.0


@dataclass
class HeadRecord:
    """The last denoisings of one method, and how many calls the original ran."""

    denoisings: deque[DenoisingRecord] = field(default_factory=lambda: deque(maxlen=KEPT))
    as_is: int = 0

    @property
    def calls(self) -> int:
        return sum(len(own.calls) for own in self.denoisings)

    @property
    def flops_ratio(self) -> float:
        """FLOPs computed over those of the original, for what was captured."""
        original = sum(own.original for own in self.denoisings)
        return sum(own.flops for own in self.denoisings) / original if original else 1.0

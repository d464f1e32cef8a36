"""What a benchmark runs, whatever the variants."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..denoising import Denoising
from ..errors import ArgumentError


@dataclass(frozen=True)
class Settings:
    """How the steps of a generation are made and timed.

    Attributes:
        batch, cfg: images at once, and guidance scales (1 for none); each of both together is benchmarked.
        steps: decoding steps.
        every: variants without state are timed at one decoding step in so many, and at the first and the last.
        all_steps: time them at all steps.
        repeats: times that the generation runs, all variants side by side.
        head: time the diffusion head too.
        cpu_time: time what one thread of the processor works instead of the wall, for a machine that others use.
        seed: of the random tokens, orders and vectors.
        denoising: of the heads of transformed models; their own when omitted.
    """

    batch: tuple[int, ...] = (4,)
    cfg: tuple[float, ...] = (3.0,)
    steps: int = 64
    every: int = 8
    all_steps: bool = False
    repeats: int = 2
    head: bool = True
    cpu_time: bool = False
    seed: int = 0
    denoising: Denoising | None = None

    def __post_init__(self) -> None:
        least = {"steps": 1, "every": 1, "repeats": 1, "seed": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ArgumentError(f"{name} must be at least {smallest}, got {getattr(self, name)}")
        if not self.batch or min(self.batch) < 1:
            raise ArgumentError(f"batch must name sizes of at least 1, got {self.batch}")
        if not self.cfg or min(self.cfg) < 1:
            raise ArgumentError(f"cfg must name guidance scales of at least 1, got {self.cfg}")

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

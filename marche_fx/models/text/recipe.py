"""What a training run of the text model is done with."""

from __future__ import annotations

from dataclasses import dataclass

MAY_CHANGE = ("steps", "decay", "cooldown")
"""What a run that goes on may do otherwise: how long it lasts, and when its learning rate begins to fall."""


@dataclass(frozen=True)
class Recipe:
    """What a run is trained with.

    The learning rate rises for ``warmup`` steps, stays, and falls to nothing in the last ``decay`` of ``steps``, or in
    the last share ``cooldown`` of the time where that is what ends the run. These may change on resuming, so a run
    whose end is not known yet takes many steps and neither. Each step takes ``batch`` pieces, as windows of one of the
    ``lengths``.
    """

    steps: int = 10_000
    decay: int = 2_000
    cooldown: float = 0.0
    batch: int = 4096
    lengths: tuple[int, ...] = (128, 256, 256, 256, 256, 512, 512, 1024)
    learning_rate: float = 3e-3
    warmup: int = 100
    weight_decay: float = 0.1
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0

    def rate(self, step: int, elapsed: float = 0.0) -> float:
        """The learning rate of ``step``, counted from 0, with a share ``elapsed`` of the run's time over."""
        rising = (step + 1) / self.warmup if self.warmup else 1.0
        falling = (self.steps - step) / self.decay if self.decay else 1.0
        cooling = max(0.0, 1 - elapsed) / self.cooldown if self.cooldown else 1.0
        return self.learning_rate * min(1.0, rising, falling, cooling)


ACCELERATED = Recipe(
    steps=1_000_000, decay=0, cooldown=0.7, batch=65_536, lengths=(256, 256, 512, 1024), weight_decay=0.2
)
"""For minutes on a GPU instead of hours on a CPU: larger steps, fewer lengths to compile, an end by the clock."""

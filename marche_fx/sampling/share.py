"""A share of a run: consecutive images that are computed together, and the random draws of each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

ALONE, TOGETHER = range(2)
"""What a seed is of: one image, or all images of a share."""


@dataclass(frozen=True)
class Share:
    """What a ``generate`` function is given: which B images to make, and where their draws come from.

    Draws are made on the CPU, each image's by a generator of its own that is seeded by the image's number alone, and
    moved to the model's device. So an image has the same noise whatever it shares a batch with.

    Attributes:
        numbers: of the images. labels: int64 ``[B]`` on ``device``; None where the run has none.
        seed: of the run. device: of the model.
    """

    numbers: range
    labels: Tensor | None
    seed: int
    device: torch.device

    def __len__(self) -> int:
        return len(self.numbers)

    @cached_property
    def generators(self) -> list[torch.Generator]:
        """One on the CPU for each image; `draw`, `randn` and `rand` go on where the last draw left them."""
        return [torch.Generator().manual_seed(word(self.seed, ALONE, number)) for number in self.numbers]

    @cached_property
    def generator(self) -> torch.Generator:
        """One on the model's device for all images, for a loop that takes no draws but a generator.

        What is drawn from it depends on the numbers of all images of the share.
        """
        return torch.Generator(self.device).manual_seed(self.together)

    @property
    def together(self) -> int:
        """A seed for all images."""
        return word(self.seed, TOGETHER, self.numbers.start, len(self))

    def draw(self, drawn: Callable[[torch.Generator], Tensor]) -> Tensor:
        """``[B, ...]`` of what is drawn for each image, ``[...]``, from its own generator."""
        return torch.stack([drawn(own) for own in self.generators]).to(self.device)

    def randn(self, *shape: int) -> Tensor:
        """Normal noise ``[B, *shape]``."""
        return self.draw(lambda own: torch.randn(shape, generator=own))

    def rand(self, *shape: int) -> Tensor:
        """Noise ``[B, *shape]``, even in 0..1."""
        return self.draw(lambda own: torch.rand(shape, generator=own))


def word(*key: int) -> int:
    """64 bits for numbers that are not negative; those of other numbers are not related."""
    high, low = np.random.SeedSequence(key).generate_state(2).tolist()
    return int(high << 32 | low)


@contextmanager
def seeded(share: Share) -> Iterator[None]:
    """Inside, what a loop draws from the global generators of torch, NumPy and Python depends on the share alone.

    Afterwards these are as they were before.
    """
    devices = [] if share.device.type == "cpu" else [share.device]
    python, arrays = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices, device_type=share.device.type if devices else "cuda"):
        torch.manual_seed(share.together)
        np.random.seed(share.together % 2**32)
        random.seed(share.together)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)

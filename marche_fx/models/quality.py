"""How good generated garments are: the share that a judge recognises, and their distance from real ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.progress import track
from torch import Tensor

from ..errors import ArgumentError
from .fashion import CLASSES
from .judge import Judge

Sampler = Callable[[Tensor, torch.Generator], Tensor]
"""``(labels [b], generator) -> images [b, 1, 28, 28]``, every random draw taken from the generator."""


@dataclass(frozen=True)
class Quality:
    """What a judge says of generated images.

    Attributes:
        images: ``[M, 1, 28, 28]``, pixels in -1..1. labels: ``[M]``, what they were asked to show.
        accuracy: share of images whose label the judge recognises.
        frechet_distance: from the test set in the judge's features; compare it at equal M only.
    """

    images: Tensor
    labels: Tensor
    accuracy: float
    frechet_distance: float


@torch.no_grad()
def measure_quality(
    sample: Sampler, judge: Judge, count: int = 1000, *, batch: int = 100, seed: int = 0, progress: bool = False
) -> Quality:
    """Generate ``count`` images, as many of each class, and judge them.

    Two samplers measured with the same ``seed`` and ``batch`` get the same labels and random draws::

        measure_quality(lambda labels, generator: mar.sample_tokens(
            len(labels), cfg=2.0, labels=labels, generator=generator), load_judge())
    """
    if count < 2 or batch < 1:
        raise ArgumentError(f"a distance takes at least 2 images, in batches of at least 1; got {count} and {batch}")
    device = judge.feature_mean.device
    generator = torch.Generator(device).manual_seed(seed)
    labels = torch.arange(count, device=device) % len(CLASSES)
    parts = track(labels.split(batch), "generating", disable=not progress)
    images = torch.cat([sample(part, generator).float().clamp(-1, 1) for part in parts])
    return Quality(images, labels, judge.accuracy(images, labels), judge.frechet_distance(images))

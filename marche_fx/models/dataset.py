"""What a training reads: images and their labels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledImages:
    """Images ``[M, c, H, W]`` uint8 and labels ``[M]`` int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Self:
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


def to_pixels(images: Tensor) -> Tensor:
    """uint8 images to float32 in -1..1."""
    return images.float() / 127.5 - 1

"""Garments as discrete tokens: a convolutional autoencoder with finite scalar quantization.

Source of the quantization: Mentzer et al. 2023 (arXiv 2309.15505). Each of a token's few channels is rounded to one of
so many levels; the code is the number that these digits write. There is no codebook that could collapse.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = 28
SIDE = 14
"""Tokens along a side of an image; each stands for some 2x2 pixels."""


class Residual(nn.Module):
    """``[B, C, H, W]`` plus what two convolutions make of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.GroupNorm(4, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class ImageTokenizer(nn.Module):
    """Pixels ``[B, 1, 28, 28]`` in -1..1 to codes ``[B, N]`` and back, ``N = 14 * 14``.

    ``largest [C, 1, 1]`` holds the largest digit of each channel.
    """

    largest: Tensor

    def __init__(self, levels: tuple[int, ...] = (8, 6, 5), width: int = 64) -> None:
        super().__init__()
        self.levels = levels
        self.register_buffer("largest", torch.tensor(levels)[:, None, None].float() - 1, persistent=False)
        fine = width // 2
        self.encoder = nn.Sequential(
            nn.Conv2d(1, fine, 3, padding=1),
            Residual(fine),
            nn.Conv2d(fine, width, 2, stride=2),
            Residual(width),
            Residual(width),
            nn.Conv2d(width, len(levels), 1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(len(levels), width, 3, padding=1),
            Residual(width),
            Residual(width),
            nn.ConvTranspose2d(width, fine, 2, stride=2),
            Residual(fine),
            Residual(fine),
            nn.Conv2d(fine, 1, 3, padding=1),
        )

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return math.prod(self.levels)

    def digits(self, images: Tensor) -> Tensor:
        """``[B, C, 14, 14]`` in 0..level - 1, not rounded yet."""
        encoded = self.encoder(images).float()
        return encoded.sigmoid() * self.largest

    def paint(self, digits: Tensor) -> Tensor:
        """Digits ``[B, C, 14, 14]`` to pixels ``[B, 1, 28, 28]``."""
        return self.decoder(2 * digits / self.largest - 1)

    def forward(self, images: Tensor) -> Tensor:
        """What encoding leaves of pixels ``[B, 1, 28, 28]``; gradients pass the rounding as if it were not there."""
        digits = self.digits(images)
        return self.paint(digits + (digits.round() - digits).detach())

    def number(self, digits: Tensor) -> Tensor:
        """Digits ``[B, C, N]`` int64 to the codes ``[B, N]`` that they write."""
        code = torch.zeros_like(digits[:, 0])
        for channel, level in enumerate(self.levels):
            code = code * level + digits[:, channel]
        return code

    def digits_of(self, codes: Tensor) -> Tensor:
        """Codes ``[B, N]`` to their digits ``[B, C, N]``."""
        digits = []
        for level in reversed(self.levels):
            digits.append(codes % level)
            codes = codes // level
        return torch.stack(digits[::-1], 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Pixels ``[B, 1, 28, 28]`` to codes ``[B, N]``, some at a time."""
        return torch.cat([self.number(self.digits(part).round().long().flatten(2)) for part in images.split(500)])

    @torch.no_grad()
    def decode(self, codes: Tensor) -> Tensor:
        """Codes ``[B, N]`` to pixels ``[B, 1, 28, 28]`` in -1..1, some at a time."""
        digits = self.digits_of(codes).unflatten(2, (SIDE, SIDE)).float()
        return torch.cat([self.paint(part).clamp(-1, 1) for part in digits.split(500)])


def reconstruction_loss(tokenizer: ImageTokenizer, images: Tensor) -> Tensor:
    """Mean squared and absolute error of pixels ``[B, 1, 28, 28]``: the second keeps edges sharp."""
    painted = tokenizer(images).float()
    return F.mse_loss(painted, images) + 0.2 * F.l1_loss(painted, images)

"""An autoencoder of emoji: pictures as 16x16 latents, whose decoder joins what neighbouring latents say.

After the tiny autoencoder of Bohan (TAESD, 2023): residual convolutions without normalisation, so that a latent acts on
the pixels around it alone, whatever the rest of the picture shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

AUTOENCODER_FILE = "autoencoder.safetensors"

LIMIT = 5.0
"""Latents are clipped to this many deviations, so that a sampler may rely on it."""


class Residual(nn.Module):
    """``x [B, D, H, W]`` plus two convolutions of it, which start as nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        last = nn.Conv2d(width, width, 3, padding=1, bias=False)
        nn.init.zeros_(last.weight)
        self.convolutions = nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.convolutions(x)


class Autoencoder(nn.Module):
    """Pictures ``[B, 3, 4 h, 4 w]`` in -1..1 to latents ``[B, C, h, w]`` and back; 2.0M parameters.

    Latents are of mean 0 and deviation 1 per channel over the training pictures, once `measure` has seen these.

    Args:
        channels: C. widths: of the convolutions at full size, half and a quarter of it.
        encoder_blocks, decoder_blocks: `Residual` blocks at each size, from the full one down.
    """

    latent_mean: Tensor
    latent_deviation: Tensor

    def __init__(
        self,
        channels: int = 8,
        widths: Sequence[int] = (32, 64, 128),
        encoder_blocks: Sequence[int] = (1, 1, 2),
        decoder_blocks: Sequence[int] = (2, 2, 3),
    ) -> None:
        super().__init__()
        full, half, quarter = widths
        self.encoder = nn.Sequential(
            nn.Conv2d(3, full, 3, padding=1),
            *residuals(full, encoder_blocks[0]),
            nn.Conv2d(full, half, 4, stride=2, padding=1),
            *residuals(half, encoder_blocks[1]),
            nn.Conv2d(half, quarter, 4, stride=2, padding=1),
            *residuals(quarter, encoder_blocks[2]),
            nn.SiLU(),
            nn.Conv2d(quarter, 2 * channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(channels, quarter, 3, padding=1),
            *residuals(quarter, decoder_blocks[2]),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(quarter, half, 3, padding=1),
            *residuals(half, decoder_blocks[1]),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(half, full, 3, padding=1),
            *residuals(full, decoder_blocks[0]),
            nn.SiLU(),
            nn.Conv2d(full, 3, 3, padding=1),
        )
        self.register_buffer("latent_mean", torch.zeros(channels))
        self.register_buffer("latent_deviation", torch.ones(channels))

    def posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance ``[B, C, h, w]`` of the latents of ``images``, before they are scaled."""
        mean, log_variance = self.encoder(images).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 4)

    def encode(self, images: Tensor) -> Tensor:
        """The latents of ``images``, scaled and clipped to `LIMIT`."""
        mean, _ = self.posterior(images)
        scaled = (mean - as_channels(self.latent_mean)) / as_channels(self.latent_deviation)
        return scaled.clamp(-LIMIT, LIMIT)

    def decode(self, latents: Tensor) -> Tensor:
        """The pictures of scaled ``latents``, in -1..1."""
        unscaled = latents * as_channels(self.latent_deviation) + as_channels(self.latent_mean)
        return self.decoder(unscaled).clamp(-1, 1)

    @torch.no_grad()
    def measure(self, images: Tensor, batch: int = 512) -> None:
        """Scale latents by their statistics over ``images`` ``[M, 3, 4 h, 4 w]``."""
        means = torch.cat([self.posterior(part)[0] for part in images.split(batch)])
        deviation, mean = torch.std_mean(means, dim=(0, 2, 3))
        self.latent_mean.copy_(mean)
        # A channel that tells nothing stays small rather than become noise.
        self.latent_deviation.copy_(deviation.clamp(min=1e-2))


def residuals(width: int, count: int) -> list[Residual]:
    return [Residual(width) for _ in range(count)]


def as_channels(values: Tensor) -> Tensor:
    """``[C]`` beside ``[B, C, h, w]``."""
    return values[:, None, None]

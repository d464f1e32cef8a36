"""Training of the `Autoencoder`, and the data set of latents that it makes of the data set of pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from ..dataset import LabelledImages, to_pixels
from ..train import Recipe, train
from .autoencoder import Autoencoder
from .dataset import Emoji

RECIPE = Recipe(epochs=1000, batch=256, learning_rate=1e-3, warmup=100, weight_decay=0.01, clip=1.0, ema_power=17.0)

EDGES = 1.0
"""Weight of the error of differences between neighbouring pixels, in which outlines are."""

RATE = 0.01
"""Weight of the divergence of latents from a standard normal: about as large is the error it costs per pixel."""

ROUGHNESS = 0.1
"""Deviation of the noise added to latents at most: a model that draws latents errs too."""

WITH_A_RIGHT_SIDE = ("Flags", "Symbols")
"""Groups whose mirror images are wrong: those with letters."""


class AutoencoderLoss(nn.Module):
    """What training minimises, on pictures of which half are mirrored.

    The absolute error of pixels, that of differences of neighbouring pixels, and the divergence of the latents.
    """

    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        # `nn.Module.to` takes it alone, as its documentation says; its types do not.
        self.autoencoder = autoencoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        turned = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
        images = torch.where(turned, images.flip(-1), images).contiguous(memory_format=torch.channels_last)
        mean, log_variance = self.autoencoder.posterior(images)
        roughness = ROUGHNESS * torch.rand(len(images), 1, 1, 1, device=images.device)
        deviation = (log_variance.exp() + roughness**2).sqrt()
        error = self.autoencoder.decoder(mean + deviation * torch.randn_like(mean)).float() - images
        divergence = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        return error.abs().mean() + EDGES * edges(error) + RATE * divergence


def edges(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbouring pixels of ``images`` ``[B, c, H, W]``."""
    return (images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()) / 2


def train_autoencoder(
    emoji: Emoji,
    out: Path,
    device: torch.device,
    *,
    minutes: float,
    recipe: Recipe = RECIPE,
    autoencoder: Callable[[], Autoencoder] = Autoencoder,
    look_every: int = 25,
) -> Autoencoder:
    """An autoencoder trained on ``device`` in the folder ``out`` for so many minutes, resumable."""
    torch.manual_seed(recipe.seed)
    trained = train(
        AutoencoderLoss(autoencoder()).to(device),
        emoji.training,
        out,
        recipe,
        bf16=True,
        checkpoint_seconds=30,
        minutes=minutes,
        look_every=look_every,
    ).autoencoder
    trained.half().float()  # The statistics belong to the weights as they are stored.
    trained.measure(to_pixels(emoji.training.images.to(device)))
    return trained


@torch.no_grad()
def encode_all(autoencoder: Autoencoder, images: Tensor, batch: int = 512) -> Tensor:
    """Latents ``[M, C, h, w]`` of uint8 ``images`` ``[M, 3, 4 h, 4 w]``, some at a time."""
    device = autoencoder.latent_mean.device
    return torch.cat([autoencoder.encode(to_pixels(part.to(device))) for part in images.split(batch)])


def encode_both_ways(autoencoder: Autoencoder, emoji: Emoji, images: LabelledImages) -> LabelledImages:
    """Latents ``[M, 2, C, h, w]`` of pictures and of their mirror images, labelled as ``images``.

    Pictures with a right side stand in for their own mirror images.
    """
    mirrors = torch.tensor([group not in WITH_A_RIGHT_SIDE for group in emoji.groups])[emoji.group_of[images.labels]]
    turned = torch.where(mirrors[:, None, None, None], images.images.flip(-1), images.images)
    latents = torch.stack([encode_all(autoencoder, way) for way in (images.images, turned)], dim=1)
    return LabelledImages(latents, images.labels.to(latents.device))


@torch.no_grad()
def reconstruction(autoencoder: Autoencoder, images: Tensor) -> Tensor:
    """uint8 ``images`` ``[M, 3, 4 h, 4 w]`` encoded and decoded: in -1..1, where the autoencoder is."""
    return torch.cat([autoencoder.decode(part) for part in encode_all(autoencoder, images).split(512)])


def signal_to_noise(decoded: Tensor, images: Tensor) -> float:
    """Peak signal-to-noise ratio, in decibels, of ``decoded`` in -1..1 against uint8 ``images``, both ``[M, ...]``."""
    error = (decoded - to_pixels(images.to(decoded.device))).square().mean()
    return (10 * torch.log10(4 / error)).item()

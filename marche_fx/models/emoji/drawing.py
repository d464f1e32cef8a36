"""Pictures of a MAR and the autoencoder whose latents it draws."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib import image as pictures
from torch import Tensor

from ...errors import DatasetError
from ..dataset import LabelledImages, to_pixels
from ..mar import MAR
from .autoencoder import Autoencoder

COLUMNS = 14


@torch.inference_mode()
def generate(
    mar: MAR,
    autoencoder: Autoencoder,
    labels: Tensor,
    *,
    steps: int,
    cfg: float,
    temperature: float,
    batch: int = 576,
    seed: int = 0,
) -> Tensor:
    """A picture for each of ``labels`` ``[M]``, some at a time: ``[M, 3, 64, 64]`` in -1..1."""
    generator = torch.Generator(labels.device).manual_seed(seed)
    parts = [
        mar.sample_tokens(len(some), steps, cfg, labels=some, temperature=temperature, generator=generator)
        for some in labels.split(batch)
    ]
    return torch.cat([autoencoder.decode(part) for part in parts])


def save_pictures(images: Tensor, path: Path, columns: int = COLUMNS) -> None:
    """Write images ``[M, 3, H, W]`` in -1..1 as one picture of so many columns, filled up with white."""
    rows = in_rows(images, columns)
    height, width = rows.shape[-2:]
    grid = rows.permute(0, 3, 1, 4, 2).reshape(len(rows) * height, columns * width, rows.shape[2])
    pictures.imsave(path, (grid.float() / 2 + 0.5).numpy(force=True))


def save_reconstructions(decoded: Tensor, images: Tensor, path: Path) -> None:
    """Rows of uint8 ``images`` ``[M, 3, H, W]``, each above the row of them ``decoded`` in -1..1."""
    originals = in_rows(to_pixels(images.to(decoded.device)), COLUMNS)
    in_turn = torch.stack([originals, in_rows(decoded, COLUMNS)], dim=1)
    save_pictures(in_turn.flatten(0, 2), path)


def in_rows(images: Tensor, columns: int) -> Tensor:
    """Images ``[M, c, H, W]`` as ``[rows, columns, c, H, W]``, filled up with white."""
    missing = -len(images) % columns
    filled = torch.cat([images, images.new_ones(missing, *images.shape[1:])])
    return filled.reshape(-1, columns, *images.shape[1:])


def shuffled(dataset: LabelledImages, count: int) -> LabelledImages:
    """``count`` images drawn at random."""
    chosen = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:count]
    return LabelledImages(dataset.images[chosen], dataset.labels[chosen])


def labelled_as(dataset: LabelledImages, labels: Tensor) -> LabelledImages:
    """An image of ``dataset`` for each of ``labels`` ``[M]``, drawn at random.

    Raises:
        DatasetError: there is none for some label.
    """
    fits = dataset.labels == labels[:, None]
    if not fits.any(-1).all():
        missing = sorted(set(labels[~fits.any(-1)].tolist()))
        raise DatasetError(f"there are no pictures labelled {missing} to compare others with; take another data set")
    chosen = torch.rand(fits.shape, generator=torch.Generator().manual_seed(0)).masked_fill(~fits, -1).argmax(-1)
    return LabelledImages(dataset.images[chosen], labels)

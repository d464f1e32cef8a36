"""The pictures of the study of garments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ...models.fashion import CLASSES
from ...models.tokens import ImageTokenizer
from ..plots import save_images, write
from ..study.lines import Line
from ..study.plots import NOT_DRAWN, draw_variants, new_axes
from .figures import TokenRow


def save_frechet_by_flops(rows: Sequence[TokenRow], path: Path) -> None:
    """Of each variant the Frechet distance, with its interval, against FLOPs; that of ``exact`` as a band."""
    figure, axes = new_axes()
    axes.set_xlabel("FLOPs, over the original's (logarithmic)")
    axes.set_ylabel("Frechet distance to the test set, 95% interval")
    for row in rows:
        if row.variant == NOT_DRAWN:
            axes.axhspan(row.frechet.low, row.frechet.high, color="0.92", zorder=0, label="exact, 95% interval")
    draw_variants(figure, axes, rows, lambda row: row.flops, lambda row: row.frechet)
    write(figure, path)


def save_garments(lines: Mapping[str, Sequence[Line]], tokenizer: ImageTokenizer, path: Path) -> None:
    """The first garment of each class under each variant, with the same noise."""
    codes = [torch.tensor(own[0].answers[: len(CLASSES)]) for own in lines.values()]
    images = [(tokenizer.decode(own) * 127.5 + 127.5).round().byte() for own in codes]
    save_images(list(lines), images, path)

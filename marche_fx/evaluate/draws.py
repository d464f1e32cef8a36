"""The random draws of a batch: shared by all points of a set of seeds, and by no other set or batch."""

from __future__ import annotations

import numpy as np
import torch

from ..demo import Draws
from ..models import MAR
from .settings import DriftSettings, Settings

IMAGES, DRIFT = range(2)
"""What draws are for."""


def batch_draws(mar: MAR, settings: Settings, seeds: int, batch: int) -> Draws:
    """The draws of a batch of a set of seeds; over all batches as many labels of each class as can be."""
    return draw(mar, batch * settings.batch, settings.size(batch), (settings.seed, seeds, IMAGES, batch))


def drift_draws(mar: MAR, settings: DriftSettings, seeds: int) -> Draws:
    """The draws of the exact generation on which drift is measured; no batch has them."""
    return draw(mar, 0, settings.drift_images, (settings.seed, seeds, DRIFT, 0))


def draw(mar: MAR, first: int, count: int, seed: tuple[int, int, int, int]) -> Draws:
    """Draws for the images ``first .. first + count - 1``, whose labels are the classes in turn.

    The noise is that of every token in every denoising step, however many tokens a decoding step draws, so that points
    with other numbers of decoding steps share it too.
    """
    high, low = np.random.SeedSequence(seed).generate_state(2).tolist()
    generator = torch.Generator().manual_seed(high << 32 | low)
    labels = torch.arange(first, first + count) % mar.num_classes
    # The orders are drawn as `MAR.sample_orders` does, on the CPU wherever the model is.
    orders = torch.rand(count, mar.seq_len, generator=generator).argsort(-1)
    noise = torch.randn((count, mar.seq_len, len(mar.diffloss.gen_diffusion), mar.token_embed_dim), generator=generator)
    device = mar.mask_token.device
    return Draws(labels.to(device), orders.to(device), noise.to(device))

"""The random draws of a batch: shared by all points of a set of seeds, and by no other set or batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import ArgumentError
from ..models import MAR
from ..models.generation import Draws, draw
from ..orders import order_by_name
from .points import Point
from .settings import DriftSettings, Settings

Drawn = TypeVar("Drawn", bound=DriftSettings)

IMAGES, DRIFT = range(2)
"""What draws are for."""


def batch_draws(mar: MAR, settings: Settings, seeds: int, batch: int, labels: Tensor | None = None) -> Draws:
    """The draws of a batch of a set of seeds.

    Args:
        labels: ``[M]``, of the images of all batches, again and again; the classes in turn when omitted.
    """
    first = batch * settings.batch
    numbers = torch.arange(first, first + settings.size(batch))
    own = numbers % mar.num_classes if labels is None else labels[numbers % len(labels)]
    return seeded(mar, own, (settings.seed, seeds, IMAGES, batch), settings.order)


def drift_draws(mar: MAR, settings: DriftSettings, seeds: int) -> Draws:
    """The draws of the exact generation on which drift is measured; no batch has them."""
    labels = torch.arange(settings.drift_images) % mar.num_classes
    return seeded(mar, labels, (settings.seed, seeds, DRIFT, 0), settings.order)


def settings_for(point: Point, settings: Drawn) -> Drawn:
    """Settings with the order that a point's recipe says.

    Raises:
        ArgumentError: its recipe is for another guidance scale or temperature.
    """
    recipe = point.recipe
    if recipe is None:
        return settings
    for name in ("cfg", "temperature"):
        own, asked = getattr(recipe, name), getattr(settings, name)
        if own is not None and own != asked:
            raise ArgumentError(
                f"the recipe {point.name} says {name}={own:g}, and the evaluation {asked:g}: points are compared at one"
            )
    return settings if recipe.order is None else replace(settings, order=recipe.order)


def seeded(mar: MAR, labels: Tensor, seed: tuple[int, int, int, int], order: str) -> Draws:
    """Draws for images of these labels ``[B]``. Noise is the same in any ``order``."""
    high, low = np.random.SeedSequence(seed).generate_state(2).tolist()
    generator = torch.Generator().manual_seed(high << 32 | low)
    draws = draw(mar, labels, generator)
    if order == "random":
        return draws
    orders = order_by_name(order)(len(labels), mar.seq_h, mar.seq_w, generator)
    # MAR decodes the last of an order first.
    return replace(draws, orders=orders.flip(-1).to(draws.orders.device))

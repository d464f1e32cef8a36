"""The random draws of a batch: shared by all points of a set of seeds, and by no other set or batch."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from ..errors import ArgumentError
from ..models import MAR
from ..models.generation import Draws, draw
from ..orders import order_by_name
from .points import Point
from .settings import DriftSettings, Settings

Drawn = TypeVar("Drawn", bound=DriftSettings)

IMAGES, DRIFT = range(2)
"""What draws are for."""


def batch_draws(mar: MAR, settings: Settings, seeds: int, batch: int) -> Draws:
    """The draws of a batch of a set of seeds; over all batches as many labels of each class as can be."""
    return seeded(
        mar, batch * settings.batch, settings.size(batch), (settings.seed, seeds, IMAGES, batch), settings.order
    )


def drift_draws(mar: MAR, settings: DriftSettings, seeds: int) -> Draws:
    """The draws of the exact generation on which drift is measured; no batch has them."""
    return seeded(mar, 0, settings.drift_images, (settings.seed, seeds, DRIFT, 0), settings.order)


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


def seeded(mar: MAR, first: int, count: int, seed: tuple[int, int, int, int], order: str) -> Draws:
    """Draws for the images ``first .. first + count - 1``, whose labels are the classes in turn.

    Noise is the same in any ``order``.
    """
    high, low = np.random.SeedSequence(seed).generate_state(2).tolist()
    labels = torch.arange(first, first + count) % mar.num_classes
    generator = torch.Generator().manual_seed(high << 32 | low)
    draws = draw(mar, labels, generator)
    if order == "random":
        return draws
    orders = order_by_name(order)(count, mar.seq_h, mar.seq_w, generator)
    # MAR decodes the last of an order first.
    return replace(draws, orders=orders.flip(-1).to(draws.orders.device))

"""What ``marche-fx sample`` samples: a model, its loop, and what judges its images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..api.recipes import recipe_for
from ..errors import ArgumentError
from ..models import MAR, Judge, load_emoji_autoencoder, load_emoji_judge, load_emoji_mar, load_judge
from ..models.bundled import garment_model
from ..orders import order_by_name
from ..recipes.loop import loop_arguments
from .plan import Generate
from .share import Share

USUAL = {"steps": 32, "cfg": 3.0, "temperature": 0.8}
"""How the models that come along are sampled where nothing else is said."""


@dataclass(frozen=True)
class Subject:
    """What is sampled.

    Attributes:
        generate: its loop. judge: of its images, where there is one. options: of `transform`. settings: of the loop.
    """

    model: nn.Module
    generate: Generate
    judge: Judge | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MarLoop:
    """MAR's own loop, on the draws of each image: its order of tokens and the noise of every token.

    Args:
        mar: the original. told: as in `loop_arguments`. decode: latents to images, where the model draws latents.
    """

    mar: MAR
    told: Mapping[str, Any]
    decode: Callable[[Tensor], Tensor] | None = None

    def __call__(self, model: Any, share: Share) -> Tensor:
        mar, told = self.mar, dict(self.told)
        order = order_by_name(told.pop("order", "random"))
        # MAR decodes the last of an order first.
        orders = share.draw(lambda own: order(1, mar.seq_h, mar.seq_w, own)[0].flip(-1))
        noise = share.randn(mar.seq_len, len(mar.diffloss.gen_diffusion), mar.token_embed_dim)
        arguments = loop_arguments(told, mar, len(share))
        images: Tensor = model.sample_tokens(len(share), labels=share.labels, orders=orders, noise=noise, **arguments)
        return images if self.decode is None else self.decode(images)


def bundled_subject(
    name: str, weights: Path | None, recipe: str | None, told: Mapping[str, Any], device: torch.device
) -> Subject:
    """A model that comes along, on a device.

    Args:
        name: ``fashion`` or ``emoji``. weights: in place of those that come along, of fashion. recipe: of the
            generation. told: what its loop is told in place of what the recipe says, as in `loop_arguments`.

    Raises:
        ArgumentError: there is none of this name, or none that takes other weights.
    """
    if name not in ("fashion", "emoji"):
        raise ArgumentError(f"model must be fashion, emoji or module:function, got {name!r}")
    if name == "emoji" and weights is not None:
        raise ArgumentError("--weights are of the model fashion; emoji takes those that come along")
    mar = garment_model(weights) if name == "fashion" else load_emoji_mar()
    own = None if recipe is None else recipe_for(mar, recipe)
    settings = USUAL | ({} if own is None else own.told) | dict(told)
    decode = load_emoji_autoencoder().to(device).decode if name == "emoji" else None
    judge = load_judge() if name == "fashion" else load_emoji_judge()
    # Checked before anything is sampled.
    order_by_name(settings.get("order", "random"))
    loop_arguments(settings, mar, 1)
    options = {} if own is None else {"recipe": own}
    return Subject(mar.to(device), MarLoop(mar, settings, decode), judge.to(device), options, settings)

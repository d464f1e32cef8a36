"""Pictures of one colour, and models small enough to learn them in a second."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from marche_fx.models.dataset import LabelledImages
from marche_fx.models.emoji.autoencoder import Autoencoder
from marche_fx.models.emoji.dataset import Emoji
from marche_fx.models.presets import mar_emoji

SMALL: dict[str, Any] = {
    "proj_dropout": 0.0,
    "diffloss_d": 1,
    "diffloss_w": 16,
    "num_sampling_steps": 3,
    "buffer_size": 2,
    "class_num": 3,
}
for half in ("encoder", "decoder"):
    SMALL |= {f"{half}_embed_dim": 16, f"{half}_depth": 1, f"{half}_num_heads": 2}

tiny_mar = partial(mar_emoji, **SMALL)
tiny_autoencoder = partial(Autoencoder, widths=(8, 8, 16), encoder_blocks=(0, 0, 1), decoder_blocks=(0, 0, 1))


def colours(count: int) -> LabelledImages:
    """Pictures of one colour for each of three subgroups, darker on the left."""
    labels = torch.arange(count) % 3
    palette = torch.tensor([[250, 10, 10], [10, 250, 10], [10, 10, 250]], dtype=torch.uint8)
    images = palette[labels][:, :, None, None].repeat(1, 1, 64, 64)
    images[..., :32] //= 2
    return LabelledImages(images, labels)


EMOJI = Emoji(colours(24), colours(9), ["Flags", "Objects"], ["flag", "tool", "book"], torch.tensor([0, 1, 1]))

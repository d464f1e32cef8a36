"""The sizes of MAR: the three published ones and those of the bundled data sets."""

from __future__ import annotations

from typing import Any

from .mar import MAR


def mar_base(**options: Any) -> MAR:
    """MAR-B, 208M parameters. ``options`` override arguments of `MAR`."""
    return MAR(**{**published(width=768, depth=12, heads=12, head_depth=6, head_width=1024), **options})


def mar_large(**options: Any) -> MAR:
    """MAR-L, 479M parameters. ``options`` override arguments of `MAR`."""
    return MAR(**{**published(width=1024, depth=16, heads=16, head_depth=8, head_width=1280), **options})


def mar_huge(**options: Any) -> MAR:
    """MAR-H, 943M parameters. ``options`` override arguments of `MAR`."""
    return MAR(**{**published(width=1280, depth=20, heads=16, head_depth=12, head_width=1536), **options})


def mar_fashion(**options: Any) -> MAR:
    """The bundled MAR: 28x28 garments of 10 classes as 14x14 tokens of 2x2 pixels, 3.0M parameters.

    Without weights; `marche_fx.models.load_fashion_mar` loads the trained ones.
    """
    sizes = transformer(width=128, depth=4, heads=4) | {"diffloss_d": 3, "diffloss_w": 256}
    image = {"img_size": 28, "vae_stride": 1, "patch_size": 2, "vae_embed_dim": 1, "class_num": 10, "buffer_size": 16}
    training = {"attn_dropout": 0.0, "proj_dropout": 0.0, "diffusion_batch_mul": 2, "diffusion_token_share": 0.7}
    return MAR(**{**sizes, **image, **training, "num_sampling_steps": 50, "token_limit": 1.0, **options})


def mar_emoji(**options: Any) -> MAR:
    """Colour emoji of Unicode's 98 subgroups as 16x16 latents of 8 channels; 12M parameters.

    `marche_fx.models.emoji.autoencoder` makes 64x64 pictures of them. Neighbouring tokens of one picture must agree on
    outlines and colours. Without weights; `marche_fx.models.load_emoji_mar` loads the trained ones.
    """
    sizes = transformer(width=256, depth=5, heads=8) | {"diffloss_d": 4, "diffloss_w": 384}
    image = {"img_size": 64, "vae_stride": 4, "vae_embed_dim": 8, "class_num": 98, "buffer_size": 16}
    training = {"attn_dropout": 0.0, "proj_dropout": 0.05, "diffusion_batch_mul": 2, "mask_ratio_min": 0.5}
    # The autoencoder clips its latents to as much.
    return MAR(**{**sizes, **image, **training, "num_sampling_steps": 50, "token_limit": 5.0, **options})


def published(width: int, depth: int, heads: int, head_depth: int, head_width: int) -> dict[str, Any]:
    return transformer(width, depth, heads) | {"diffloss_d": head_depth, "diffloss_w": head_width}


def transformer(width: int, depth: int, heads: int) -> dict[str, Any]:
    """The same width, depth and heads for encoder and decoder."""
    return {
        f"{half}_{name}": value
        for half in ("encoder", "decoder")
        for name, value in (("embed_dim", width), ("depth", depth), ("num_heads", heads))
    }


SIZES = {"fashion": mar_fashion, "emoji": mar_emoji, "base": mar_base, "large": mar_large, "huge": mar_huge}

"""Models of diffusers."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Generator, Tensor, nn

from .entry import WIDTH, Arguments, Entry, floats, ids, padding

# What its type hints say of constructors does not hold.
diffusers: Any = import_module("diffusers")


def image_ids(samples: int, tokens: int, generator: Generator) -> Arguments:
    side = round(tokens**0.5)
    return (), {
        "input_ids": ids(samples, tokens, generator, 17).view(samples, side, side),
        "encoder_hidden_states": floats(samples, 5, 8, generator=generator),
        "pooled_text_emb": floats(samples, 8, generator=generator),
        "micro_conds": floats(samples, 5, generator=generator),
    }


def latents(samples: int, tokens: int, generator: Generator) -> dict[str, Tensor]:
    """An image of ``tokens`` patches of two by two, and a timestep."""
    side = 2 * round(tokens**0.5)
    return {
        "hidden_states": floats(samples, 4, side, side, generator=generator),
        "timestep": torch.randint(10, (samples,), generator=generator),
    }


def labelled_latents(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (), latents(samples, tokens, generator) | {
        "class_labels": torch.randint(10, (samples,), generator=generator)
    }


def captioned_latents(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (), latents(samples, tokens, generator) | {
        "encoder_hidden_states": floats(samples, 5, 8, generator=generator),
        "encoder_attention_mask": padding(samples, 5, generator).double(),
    }


def pooled_latents(samples: int, tokens: int, generator: Generator) -> Arguments:
    return (), latents(samples, tokens, generator) | {
        "encoder_hidden_states": floats(samples, 5, 8, generator=generator),
        "pooled_projections": floats(samples, 8, generator=generator),
    }


def captioned_image_ids(samples: int, tokens: int, generator: Generator) -> Arguments:
    """The timestep has no samples: `AdaLayerNorm` cuts its first dimension in two."""
    return (), {
        "hidden_states": ids(samples, tokens, generator, 9),
        "encoder_hidden_states": floats(samples, 5, 8, generator=generator),
        "timestep": torch.randint(10, (), generator=generator),
    }


def uvit(resample: bool) -> Callable[[], nn.Module]:
    return lambda: diffusers.UVit2DModel(
        hidden_size=WIDTH,
        hidden_dropout=0.0,
        cond_embed_dim=8,
        micro_cond_encode_dim=2,
        micro_cond_embed_dim=10,
        encoder_hidden_size=8,
        vocab_size=17,
        codebook_size=16,
        in_channels=WIDTH,
        block_out_channels=WIDTH,
        num_res_blocks=1,
        downsample=resample,
        upsample=resample,
        block_num_heads=2,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_dropout=0.0,
        intermediate_size=32,
    )


PATCHES = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "num_layers": 2,
    "sample_size": 8,
    "patch_size": 2,
}


def dit() -> nn.Module:
    return diffusers.DiTTransformer2DModel(**PATCHES, out_channels=4, num_embeds_ada_norm=10)


def pixart() -> nn.Module:
    return diffusers.PixArtTransformer2DModel(
        **PATCHES, out_channels=8, cross_attention_dim=WIDTH, caption_channels=8, use_additional_conditions=False
    )


def sd3() -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        **PATCHES,
        joint_attention_dim=8,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=8,
        out_channels=4,
        pos_embed_max_size=8,
    )


def vq_diffusion() -> nn.Module:
    return diffusers.Transformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        sample_size=4,
        num_vector_embeds=9,
        num_embeds_ada_norm=10,
        norm_type="ada_norm",
        cross_attention_dim=8,
        activation_fn="geglu-approximate",
        attention_bias=True,
    )


ENTRIES = (
    # Its RMSNorm takes means in float32.
    Entry(
        "aMUSEd",
        uvit(resample=False),
        image_ids,
        8,
        2,
        full=("aten.convolution", "aten.add"),
        tokens=(16,),
        share=0.75,
        tolerance=1e-6,
    ),
    Entry(
        "aMUSEd, resampled",
        uvit(resample=True),
        image_ids,
        8,
        2,
        full=("aten.convolution", "aten.add"),
        tokens=(64,),
        # Behind the last attention pixels are mixed, so that no row of the result is one token's.
        told="read as a whole",
        share=0.85,
        tolerance=1e-6,
    ),
    Entry(
        "DiT",
        dit,
        labelled_latents,
        2,
        2,
        tokens=(16,),
        share=0.4,
    ),
    Entry(
        "PixArt",
        pixart,
        captioned_latents,
        4,
        2,
        apart={"caption_projection.*": "embeds the caption"},
        tokens=(16,),
        share=0.4,
    ),
    Entry(
        "SD3",
        sd3,
        pooled_latents,
        2,
        3,
        tokens=(16,),
        share=0.4,
    ),
    # Its results are converted to float32.
    Entry("VQ-Diffusion", vq_diffusion, captioned_image_ids, 4, 2, tokens=(16,), share=0.4, tolerance=1e-6),
)

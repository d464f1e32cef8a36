"""A MAR and a data set small enough to run in milliseconds."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marche_fx.models.fashion import Fashion
from marche_fx.models.mar import MAR


def tiny_mar(**options: Any) -> MAR:
    """16 tokens of 4 channels, 3 classes, 2 class tokens; every parameter random, also those that start at zero."""
    sizes: dict[str, Any] = {
        "img_size": 8,
        "vae_stride": 1,
        "patch_size": 2,
        "vae_embed_dim": 1,
        "class_num": 3,
        "buffer_size": 2,
        "mlp_ratio": 2.0,
        "diffloss_d": 2,
        "diffloss_w": 16,
        "num_sampling_steps": 5,
        "attn_dropout": 0.0,
        "proj_dropout": 0.0,
    }
    for half in ("encoder", "decoder"):
        sizes |= {f"{half}_embed_dim": 16, f"{half}_depth": 2, f"{half}_num_heads": 2}
    model = MAR(**{**sizes, **options})
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draws))
    return model.double().eval()


def noise_for(model: MAR, bsz: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """An order for each sample and every draw of the head: ``orders [bsz, N]``, ``noise [bsz, N, S, C]``."""
    draws = torch.Generator().manual_seed(seed)
    shape = (bsz, model.seq_len, len(model.diffloss.gen_diffusion), model.token_embed_dim)
    return model.sample_orders(bsz, draws), torch.randn(shape, generator=draws, dtype=torch.float64)


def tiny_images(count: int = 20, size: int = 8, classes: int = 3) -> Fashion:
    draws = torch.Generator().manual_seed(2)
    images = torch.randint(256, (count, 1, size, size), generator=draws, dtype=torch.uint8)
    return Fashion(images, torch.randint(classes, (count,), generator=draws))


def write_idx(path: Path, values: Tensor, zipped: bool = False) -> None:
    """An IDX file of unsigned bytes."""
    content = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    content += values.to(torch.uint8).numpy().tobytes()
    if zipped:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_fashion(folder: Path, split: str, dataset: Fashion, zipped: bool = False) -> None:
    """The two IDX files of a split."""
    folder.mkdir(parents=True, exist_ok=True)
    write_idx(folder / f"{split}-images-idx3-ubyte", dataset.images[:, 0], zipped)
    write_idx(folder / f"{split}-labels-idx1-ubyte", dataset.labels, zipped)

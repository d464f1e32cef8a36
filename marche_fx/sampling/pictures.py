"""What a loop returned, checked, and as it is kept."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..errors import SamplingError

CHANNELS = (1, 3, 4)
"""Of grey pictures, of colours, of colours with opacity."""


def checked(result: object, expected: int) -> Tensor:
    """What a loop returned for as many images as were ``expected``.

    Raises:
        SamplingError: it is no tensor, or of another number of images.
    """
    if not isinstance(result, Tensor):
        raise SamplingError(f"generate must return a tensor [B, ...] of images, got {type(result).__name__}")
    found = len(result) if result.ndim else None
    if found != expected:
        raise SamplingError(
            f"generate was asked for {expected} images, those of share.numbers, and returned "
            f"{'one number' if found is None else found}"
        )
    return result.detach()


def as_pixels(images: Tensor) -> Tensor:
    """Images ``[B, c, H, W]``, in -1..1 where they are no bytes, as uint8 ``[B, c, H, W]`` on the host.

    Raises:
        SamplingError: they are none, or not all numbers are finite.
    """
    is_picture = images.ndim == 4 and images.shape[1] in CHANNELS
    if not is_picture or not (images.is_floating_point() or images.dtype == torch.uint8):
        raise SamplingError(
            f"generate must return images [B, 1, 3 or 4, H, W] in -1..1 or as uint8, got {images.dtype} "
            f"{list(images.shape)}. Decode latents to images; or keep them as they are by raw=True, as npz or "
            "safetensors"
        )
    if images.dtype == torch.uint8:
        return images.cpu()
    pixels = images.float().cpu()
    if not pixels.isfinite().all():
        raise SamplingError("generate returned images with values that are not finite (NaN or infinity)")
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_pixels(pixels: Tensor) -> Tensor:
    """Bytes ``[B, c, H, W]`` as float32 in -1..1."""
    return pixels.float() / 127.5 - 1


def channels_last(pixels: Tensor) -> np.ndarray:
    """``[B, c, H, W]`` to ``[B, H, W, c]``, as files have it."""
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()

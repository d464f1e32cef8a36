"""Claim share after share, and make the images of those that are not there."""

from __future__ import annotations

import time

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from ..errors import SamplingError
from ..marks import ATTRIBUTE
from .folder import FEATURES, IMAGES, Folder
from .formats import LABELS, NUMBERS
from .pictures import as_pixels, channels_last, checked, from_pixels
from .plan import Generate, Plan
from .progress import Speed
from .ranks import Ranks
from .share import Share, seeded

FEATURE_ARRAY = "features"
"""Name of the array in a file of features."""


def make_shares(model: nn.Module, generate: Generate, plan: Plan, folder: Folder, own: Ranks, told: Speed) -> int:
    """Claim share after share, and make those that are not there; how many images that were."""
    made, is_warm = 0, not hasattr(model, ATTRIBUTE)
    while (index := own.add("claimed", 1) - 1) < plan.shares:
        share = plan.share(index)
        numbers = plan.kept(share)
        is_there = folder.has(index)
        if not is_there:
            if not is_warm:
                warm_up(model, generate, plan)
                is_warm = True
            began = time.monotonic()
            files = share_files(model, generate, plan, index, share)
            seconds = time.monotonic() - began
            folder.write(index, numbers, files, seconds=seconds, rank=own.rank, run=own.run)
            made += len(numbers)
        own.add("found" if is_there else "made", len(numbers))
        told.tell(own.add("made", 0), own.add("found", 0))
    return made


def warm_up(model: nn.Module, generate: Generate, plan: Plan) -> None:
    """Decode the first share for nothing, in every process.

    A transformed model is captured in its first calls, and a head that reuses runs as the original until it has seen a
    denoising: what is made first is not what is made later, to the bit.
    """
    decoded(model, generate, plan.share(0))


def images_of(model: nn.Module, generate: Generate, share: Share) -> np.ndarray:
    """Uint8 ``[B, H, W, c]``, the images that `sample` keeps of a share: for whoever schedules shares otherwise.

    A transformed model should have decoded a share before, as it has in `sample`.

    Raises:
        SamplingError: ``generate`` returned something else than it was asked for.
    """
    return channels_last(as_pixels(decoded(model, generate, share)))


@torch.no_grad()
def decoded(model: nn.Module, generate: Generate, share: Share) -> Tensor:
    """What a loop returns for a share."""
    with seeded(share):
        return checked(generate(model, share), len(share))


@torch.no_grad()
def share_files(model: nn.Module, generate: Generate, plan: Plan, index: int, share: Share) -> list[tuple[str, bytes]]:
    """The files of a share, names and contents."""
    numbers = plan.kept(share)
    result = decoded(model, generate, share)
    kept = result.cpu() if plan.raw else as_pixels(result)
    stored = kept.numpy() if plan.raw else channels_last(kept)
    arrays = {IMAGES: stored[: len(numbers)], NUMBERS: np.asarray(numbers, dtype=np.int64)}
    if share.labels is not None:
        arrays[LABELS] = share.labels[: len(numbers)].cpu().numpy()
    contents = plan.format.encode(arrays)
    files = [(f"{IMAGES}/{name}", own) for name, own in zip(plan.format.names(index, numbers), contents, strict=True)]
    if plan.features is not None:
        # Of the whole share, as its images were made.
        given = (kept if plan.raw else from_pixels(kept)).to(share.device)
        found = checked_features(plan.features(given), len(share))[: len(numbers)]
        files.append((f"{FEATURES}/{index:06d}.safetensors", save({FEATURE_ARRAY: found.float().cpu().contiguous()})))
    return files


def checked_features(found: object, count: int) -> Tensor:
    """What the function of features returned.

    Raises:
        SamplingError: it is no ``[B, D]``.
    """
    if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != count:
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise SamplingError(f"features must return [{count}, D] for {count} images, got {shape}")
    return found

"""Sample any number of images, in shares that many processes claim, resumable after a kill at any moment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from safetensors.torch import load
from torch import Tensor, nn

from ..saving.files import tensors_hash, write_json
from ..saving.locks import held_folder
from .adm import write_adm
from .folder import FEATURES, SUMMARY_FILE, Folder
from .identity import identity_of
from .labels import Labels
from .making import FEATURE_ARRAY, make_shares
from .moments import Moments
from .plan import Features, Generate, Plan, checked_plan
from .progress import speed
from .ranks import ranks


@dataclass(frozen=True)
class Sampled:
    """What a run came to.

    Attributes:
        rank: of this process. count: images that are there. made: those that this run made, by rank.
        seconds: from the first claim to the last image of this run.
        frechet: distance of all images from the reference. moments: of their features. adm: the file of all images.
    """

    folder: Path
    rank: int
    count: int
    made: tuple[int, ...]
    seconds: float
    frechet: float | None = None
    moments: Moments | None = None
    adm: Path | None = None

    @property
    def images_per_second(self) -> float:
        return sum(self.made) / self.seconds


def sample(
    model: nn.Module,
    generate: Generate,
    count: int,
    out: str | Path,
    *,
    batch: int = 64,
    labels: Labels = None,
    classes: int | None = None,
    seed: int = 0,
    format: str = "png",
    raw: bool = False,
    features: Features | None = None,
    reference: tuple[Tensor, Tensor] | None = None,
    adm: bool = False,
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Sampled:
    """Make images ``0 .. count - 1`` in the folder ``out``, and go on where a run of the same was stopped.

    Under ``torchrun``, or in a process group that is there, all processes take part: each claims one share of ``batch``
    images after another, so that a slow one keeps no other waiting for long. Each has its own copy of the model, on its
    own device: `marche_fx.sampling.local_device` says which.

    An image depends on its number, ``seed`` and ``batch``, and on nothing else of the run: its draws on its number and
    the seed alone, see `Share`; and since arithmetic in batches of other sizes rounds otherwise, a share is always
    computed as a whole, also where its last images are not wanted. So neither a restart, nor the number of processes,
    nor who made which share changes a bit, on machines of one kind with one number of threads.

    Args:
        model: transformed or not, in eval mode.
        generate: ``generate(model, share)`` runs the loop for the images of a `Share`, with the noise and orders that
            it draws from it, and returns them: ``[B, c, H, W]`` in -1..1, or as uint8. What a loop draws from the
            global generators of torch, NumPy and Python depends on the share too.
        count: of images. batch: images at once. labels: ``"balanced"``, one for each image, or None.
        classes: how many there are; the model's ``num_classes`` when omitted.
        format: ``"png"``, a file for each image; ``"npz"`` or ``"safetensors"``, a file for each share, with
            ``images`` ``[b, H, W, c]``, ``labels`` and ``numbers``.
        raw: keep what ``generate`` returns as it is, such as latents or token ids; for npz and safetensors.
        features: of images as they are kept, float32 ``[B, c, H, W]`` in -1..1 on the model's device, to ``[B, D]``.
            They are kept too, and their mean and covariance put together at the end.
        reference: mean ``[D]`` and covariance ``[D, D]`` of real images' features, to measure the Frechet distance.
        adm: also write all images to one file with ``arr_0``, which the evaluation suite of ADM reads.
        settings: what else images depend on, such as the loop's number of steps, as JSON has it: a folder is gone on
            with only where they are equal.

    Returns:
        The same on all processes, but for statistics and files, which are the first one's.

    Raises:
        ArgumentError: an argument has the wrong type or range, or ``out`` holds images of another run, or another run
            is at work in it.
        SamplingError: ``generate`` returned something else than it was asked for.
        StorageError: a file cannot be written; what was made before is whole, and the same call goes on from there.
    """
    plan = checked_plan(
        model, generate, count, batch=batch, labels=labels, classes=classes, seed=seed, format=format, raw=raw,
        features=features, reference=reference, adm=adm,
    )  # fmt: skip
    manifest = {
        "count": count,
        "batch": batch,
        "seed": seed,
        "format": format,
        "raw": raw,
        "labels": labels if plan.labels is None or isinstance(labels, str) else tensors_hash({"labels": plan.labels}),
        "features": features is not None,
        **identity_of(model, generate, settings or {}),
    }
    folder, console = Folder(Path(out), manifest), console or Console()
    with ranks() as own, contextlib.ExitStack() as stack:
        if own.is_first:
            stack.enter_context(held_folder(folder.path, "sampling"))
            folder.make()
            folder.remove_half_written()
        own.gather(None)
        folder.check()
        with speed(console if own.is_first else Console(quiet=True), count) as told:
            began = time.monotonic()
            made = make_shares(model, generate, plan, folder, own, told)
            found = Sampled(folder.path, own.rank, count, tuple(own.gather(made)), time.monotonic() - began)
        # The others hold no result back from whoever waits for the first one's.
        return finished(found, plan, folder, reference, adm) if own.is_first else found


def finished(found: Sampled, plan: Plan, folder: Folder, reference: tuple[Tensor, Tensor] | None, adm: bool) -> Sampled:
    """Put together what all processes made."""
    records = [folder.record(index) for index in range(plan.shares)]
    moments = None
    if plan.features is not None:
        contents = (folder.content(own, name) for own in records for name in own.files if name.startswith(FEATURES))
        moments = Moments.merged(Moments.of(load(content)[FEATURE_ARRAY]) for content in contents)
    distance = None if moments is None or reference is None else moments.frechet_distance(*reference)
    path = write_adm(folder, plan.shares, plan.count, plan.format, plan.labels) if adm else None
    summary = {
        "count": sum(own.count for own in records),
        "seconds": sum(own.seconds for own in records),
        "made_in_the_last_run": found.made,
        "images_per_second_of_the_last_run": found.images_per_second,
        "frechet": distance,
    }
    write_json(folder.path / SUMMARY_FILE, summary)
    return replace(found, frechet=distance, moments=moments, adm=path)

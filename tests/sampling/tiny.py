"""Runs of a model that makes images in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from marche_fx.models import MAR
from marche_fx.sampling import Sampled, Share, sample
from marche_fx.sampling.bundled import MarLoop
from tests.evaluate.tiny import silent, tiny_garments

COUNT, BATCH = 10, 3
"""Four shares, of which the last is not wanted as a whole."""

TOLD = {"steps": 3, "cfg": 2.0, "temperature": 1.0}


def garments() -> MAR:
    torch.manual_seed(0)
    return tiny_garments().eval()


def means(images: Tensor) -> Tensor:
    """Features ``[B, 4]`` of images ``[B, 1, H, W]``."""
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def sampled(out: Path, model: nn.Module | None = None, **options: Any) -> Sampled:
    """A run of the tiny MAR, or of what was made of it."""
    mar = garments()
    given: dict[str, Any] = {
        "count": COUNT,
        "batch": BATCH,
        "labels": "balanced",
        "features": means,
        "console": silent(),
    } | options
    loop = given.pop("generate", MarLoop(mar, TOLD))
    return sample(mar if model is None else model, loop, given.pop("count"), out, **given)


def files(out: Path) -> dict[str, bytes]:
    """Images and features of a run, by name."""
    found = [path for name in ("images", "features") for path in sorted((out / name).iterdir())]
    return {str(path.relative_to(out)): path.read_bytes() for path in found}


class Flat(nn.Module):
    """Every image is one number: its label."""

    num_classes = 7

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.eval()

    def forward(self, labels: Tensor) -> Tensor:
        return (self.weight * labels)[:, None, None, None].expand(-1, 1, 2, 2) / self.num_classes


def flat(model: Any, share: Share) -> Tensor:
    found: Tensor = model(share.labels)
    return found


def flat_model() -> tuple[nn.Module, Any]:
    """What ``--model tests.sampling.tiny:flat_model`` names."""
    return Flat(), flat

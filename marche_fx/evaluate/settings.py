"""What all points of an evaluation share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from .. import version
from ..denoising import Denoising
from ..errors import ArgumentError
from ..orders import order_by_name
from ..saving.files import weights_hash
from ..saving.fingerprint import digest_of, fingerprint


@dataclass(frozen=True)
class DriftSettings:
    """How the exact steps are made on which drift is measured.

    Attributes:
        steps, cfg, temperature: as in `MAR.sample_tokens`. seed: of every random draw.
        drift_images: images decoded at once while drift is measured.
        order: in which tokens are decoded, see `orders.ORDERS`.
    """

    steps: int = 32
    cfg: float = 3.0
    temperature: float = 0.8
    seed: int = 0
    drift_images: int = 20
    order: str = "random"

    def __post_init__(self) -> None:
        order_by_name(self.order)
        for name, least in self.least.items():
            if getattr(self, name) < least:
                raise ArgumentError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @property
    def least(self) -> dict[str, int]:
        return {"steps": 1, "seed": 0, "drift_images": 1}


@dataclass(frozen=True)
class Settings(DriftSettings):
    """The same, and how many images to generate for each point, ``batch`` at once.

    Attributes:
        denoising: of the head, at all points; its own when omitted.
    """

    images: int = 2000
    batch: int = 100
    denoising: Denoising | None = None

    @property
    def least(self) -> dict[str, int]:
        return {**super().least, "images": 2, "batch": 1}

    @property
    def batches(self) -> int:
        return -(-self.images // self.batch)

    def size(self, batch: int) -> int:
        """Images in a batch: the last may be smaller."""
        return min(self.batch, self.images - batch * self.batch)


def identity(settings: DriftSettings, **models: nn.Module) -> dict[str, Any]:
    """What results must agree in to be put together: settings, the models by name, version.

    Of a model its weights, and what else its images come from: code and attributes, such as the head's sampling steps.
    """
    found = {name: f"{weights_hash(model)} {digest_of(fingerprint(model))}" for name, model in models.items()}
    # As JSON has it, without tuples.
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    return values | found | {"version": version.__version__}

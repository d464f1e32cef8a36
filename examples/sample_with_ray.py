"""Many images on a cluster of Ray: an actor pool, each actor with one optimized model, share after share.

pip install 'marche-fx[ray]' && python examples/sample_with_ray.py
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.data import ActorPoolStrategy

import marche_fx
from marche_fx.models import MAR, load_fashion_mar
from marche_fx.sampling import Share, images_of
from marche_fx.sampling.bundled import MarLoop

TOLD = {"steps": 32, "cfg": 3.0, "temperature": 0.8}


class Sampler:
    """An actor: captures once, then makes the images of any share, the same whichever actor that is."""

    def __init__(self, build: Callable[[], MAR], batch: int, told: dict[str, Any], out: str) -> None:
        torch.set_num_threads(1)
        mar = build()
        self.model = marche_fx.transform(mar, compile=False)
        self.generate = MarLoop(mar, told)
        self.batch, self.classes, self.out = batch, mar.num_classes, Path(out)
        # What is captured in the first calls is then there for every share.
        self.images(0)

    def images(self, index: int) -> np.ndarray:
        """``[batch, H, W, c]`` uint8."""
        numbers = range(index * self.batch, (index + 1) * self.batch)
        labels = torch.arange(numbers.start, numbers.stop) % self.classes
        return images_of(self.model, self.generate, Share(numbers, labels, seed=0, device=torch.device("cpu")))

    def __call__(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for index in rows["id"].tolist():
            partial = self.out / f"{index:06d}.partial"
            with partial.open("wb") as file:
                np.savez(file, images=self.images(index))
            os.replace(partial, file_of(self.out, index))
        return {"id": rows["id"], "process": np.full(len(rows["id"]), os.getpid())}


def file_of(out: Path, index: int) -> Path:
    return out / f"{index:06d}.npz"


def main(
    count: int = 64,
    batch: int = 16,
    actors: int = 2,
    out: Path = Path("images"),
    build: Callable[[], MAR] = load_fashion_mar,
    told: dict[str, Any] = TOLD,
) -> list[dict[str, int]]:
    """Make shares that are not there; which process made which. On GPUs, give each actor one by ``num_gpus=1``."""
    out.mkdir(parents=True, exist_ok=True)
    missing = [index for index in range(-(-count // batch)) if not file_of(out, index).exists()]
    if not missing:
        return []
    shares = ray.data.from_items([{"id": index} for index in missing], override_num_blocks=len(missing))
    made: list[dict[str, int]] = shares.map_batches(
        Sampler,
        fn_constructor_args=(build, batch, told, str(out.resolve())),
        batch_size=1,
        compute=ActorPoolStrategy(size=actors),
    ).take_all()
    print(f"{len(made)} shares by {len({own['process'] for own in made})} actors are in {out}")
    return made


if __name__ == "__main__":
    main()

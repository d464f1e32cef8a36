"""A policy or a recipe for the bundled MAR of garments: what ``marche-fx tune`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich
import torch
from torch import Tensor, nn

from ..models import CLASSES, MAR, load_judge
from ..models.bundled import garment_model
from ..models.generation import draw
from ..recipes import Recipe
from ..tuning.generation import tune_recipe
from ..tuning.recipe_trials import Generate
from ..tuning.tune import Tuned, tune
from ..tuning.tuned_recipe import TunedRecipe
from .frechet_judge import FrechetJudge
from .run import wide_console


def tune_garment_policy(
    weights: Path | None,
    out: Path,
    *,
    max_drift: float,
    images: int,
    steps: int,
    cfg: float,
    temperature: float,
    seed: int,
) -> Tuned:
    """Find a policy, print what was found, and write it to ``out``; what was tried goes to a file beside it."""

    def run(model: nn.Module, own: int) -> None:
        generator = torch.Generator().manual_seed(own)
        labels = torch.arange(images) % len(CLASSES)
        sample: Any = model.sample_tokens
        sample(images, steps, cfg, labels=labels, temperature=temperature, generator=generator)

    found = tune(
        garment_model(weights),
        run,
        max_drift,
        seeds=(seed, seed + 1),
        unseen=(seed + 1000, seed + 1001),
        out=out.with_suffix(".trials.json"),
        progress=True,
    )
    found.save(out)
    rich.print(found)
    print(f"{out}: drift {found.drift:.4f} on unseen seeds at {found.flops_ratio:.3f} of the FLOPs")
    return found


def tune_garment_recipe(
    weights: Path | None,
    base: Recipe,
    out: Path,
    *,
    max_loss: float,
    images: int,
    seeds: Sequence[int],
    unseen: Sequence[int],
    cpu_time: bool,
) -> TunedRecipe:
    """Find a recipe, print what was found, and write it to ``out``; measurements go to a folder beside it."""
    mar = garment_model(weights)
    found = tune_recipe(
        mar,
        garment_generation(mar, images),
        FrechetJudge.of(load_judge()),
        max_loss=max_loss,
        base=base,
        seeds=seeds,
        unseen=unseen,
        out=out.with_suffix(".search"),
        progress=True,
        cpu_time=cpu_time,
        compile=False,
    )
    found.save(out)
    console = wide_console()
    console.print(found)
    console.print(f"{out}: {found.recipe.figures}", highlight=False)
    return found


def garment_generation(mar: MAR, batch: int) -> Generate:
    """``generate(model, recipe, seed)``: images of the classes in turn, on draws that recipes of one seed share."""

    def generate(model: nn.Module, recipe: Recipe, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        draws = draw(mar, torch.arange(batch) % mar.num_classes, generator)
        arguments = {"orders": draws.orders, **recipe.arguments(mar, batch, generator)}
        sample: Any = model.sample_tokens
        images: Tensor = sample(batch, labels=draws.labels, noise=draws.noise, **arguments)
        return images.clamp(-1, 1).clone()

    return generate

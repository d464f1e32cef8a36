"""``marche-fx tune``: the cheapest policy or recipe within a bound."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import CpuTime, Guidance, Seed, Steps, Temperature, Weights


def tune(
    max_drift: Annotated[float, typer.Option(help="bound on the mean drift of the rows read")] = 0.05,
    max_loss: Annotated[
        float | None,
        typer.Option(
            help="instead, find a recipe of the whole generation; bound on the Frechet distance over the original's"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="policy or recipe file to write; what was tried goes beside it, and a search that was ended goes on; "
            "policy.json or recipe.json when omitted"
        ),
    ] = None,
    weights: Weights = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="images of a generation; 10 when omitted, or 50 for a recipe")
    ] = None,
    seeds: Annotated[int, typer.Option(min=2, help="generations to judge a recipe by, and as many unseen ones")] = 16,
    steps: Steps = 32,
    cfg: Guidance = 3.0,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    cpu_time: CpuTime = False,
) -> None:
    """Find the cheapest refresh policy whose drift stays within a bound, on the bundled MAR; or a whole recipe."""
    from ..evaluate.garments import tune_garment_policy, tune_garment_recipe
    from ..recipes import Recipe

    if max_loss is None:
        tune_garment_policy(
            weights,
            out or Path("policy.json"),
            max_drift=max_drift,
            images=images or 10,
            steps=steps,
            cfg=cfg,
            temperature=temperature,
            seed=seed,
        )
        return
    tune_garment_recipe(
        weights,
        Recipe(steps=steps, cfg=cfg, temperature=temperature),
        out or Path("recipe.json"),
        max_loss=max_loss,
        images=images or 50,
        seeds=range(seed, seed + seeds),
        unseen=range(seed + 1000, seed + 1000 + seeds),
        cpu_time=cpu_time,
    )

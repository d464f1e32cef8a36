"""``marche-fx evaluate``: quality under refresh policies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Denoise, Guidance, Recipes, Seed, Steps, Temperature, Weights


def evaluate(
    out: Annotated[Path, typer.Option("--out", help="folder of the evaluation; one found there goes on")],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            help="exact, nothing, selective:0.1, marche:0.1, random:0.1, oldest:0.1, drift:0.1, neighbour:0.1, "
            "interleaved:2, periodic:8 or a policy's JSON file; @20 behind it for 20 decoding steps, #2 for the second "
            "set of seeds; may be repeated; exact and selective:0.1 when omitted",
        ),
    ] = None,
    recipe: Recipes = None,
    images: Annotated[int, typer.Option(min=2, help="how many images to generate for each policy")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="images generated at once")] = 100,
    steps: Steps = 32,
    cfg: Guidance = 3.0,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    drift: Annotated[bool, typer.Option("--drift", help="measure drift alone, without generating images")] = False,
    drift_images: Annotated[int, typer.Option(min=1, help="images on whose decoding drift is measured")] = 20,
    weights: Weights = None,
    denoising: Denoise = None,
    order: Annotated[str, typer.Option(help="of tokens: random, raster, halton or checkerboard")] = "random",
) -> None:
    """Judge garments that the bundled MAR generates under refresh policies; resumable after a kill at any moment.

    Frechet distance with intervals, label accuracy, precision, recall, teacher-forced drift, FLOPs and time.
    """
    from ..api.recipes import recipe_for
    from ..denoising import parse_denoising
    from ..evaluate import DriftSettings, Settings, evaluate_drift, parse_points, recipe_point
    from ..evaluate import evaluate as evaluate_points
    from ..models.bundled import garment_model

    model = garment_model(weights)
    points = parse_points(policy or (["exact"] if recipe else ["exact", "selective:0.1"]))
    points += [recipe_point(word, recipe_for(model, word)) for word in recipe or ()]
    if drift:
        evaluate_drift(model, points, out, DriftSettings(steps, cfg, temperature, seed, drift_images, order))
    else:
        asked = None if denoising is None else parse_denoising(denoising)
        shared = steps, cfg, temperature, seed, drift_images, order
        evaluate_points(model, points, out, Settings(*shared, images, batch, asked))

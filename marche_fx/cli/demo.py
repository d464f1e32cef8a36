"""``marche-fx demo``: what recipes do to the bundled MAR's garments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Guidance, Recipes, Seed, Steps, Temperature


def demo(
    out: Annotated[Path, typer.Option(help="picture to write")] = Path("demo.png"),
    images: Annotated[int, typer.Option(min=1, help="images of each class")] = 4,
    steps: Steps = 32,
    recipe: Recipes = None,
    cfg: Guidance = 3.0,
    temperature: Temperature = 0.8,
    seed: Seed = 0,
    compile: Annotated[bool, typer.Option(help="torch.compile the rewritten steps")] = False,
) -> None:
    """Generate garments from the same seeds, exactly and by recipes, balanced and fast; write them side by side."""
    from ..models.demo import run_demo

    run_demo(
        out,
        per_class=images,
        steps=steps,
        cfg=cfg,
        temperature=temperature,
        seed=seed,
        recipes=recipe or ("balanced", "fast"),
        compile=compile,
    )

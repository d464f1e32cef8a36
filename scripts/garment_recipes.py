"""Search for recipes ``"balanced"`` and ``"fast"`` of the bundled MAR, in place of those in marche_fx/recipes/garments.

Searches as `marche_fx.tune_recipe` does. Writes the fastest recipes within two bounds on the Frechet distance over the
original's, and all that was judged in the end. Goes on where it was ended.

    python scripts/garment_recipes.py --out runs/garment-recipes [--cpu-time]
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from marche_fx import (
    Denoising,
    FullRefresh,
    HeadReuse,
    Ingredients,
    Recipe,
    SelectiveRefresh,
    TuningError,
    save_recipe,
    tune_recipe,
)
from marche_fx.evaluate import FrechetJudge
from marche_fx.evaluate.garments import garment_generation
from marche_fx.models import load_fashion_mar, load_judge
from marche_fx.recipes import recipe_to_dict
from marche_fx.saving.files import write_json

BASE = Recipe(
    reuse=HeadReuse(guidance=2),
    steps=32,
    cfg=3.0,
    temperature=0.8,
)
"""What every recipe has where it has nothing cheaper."""

INGREDIENTS = Ingredients(
    steps=(16, 12),
    refresh=(FullRefresh(), *(SelectiveRefresh(share, warmup=1) for share in (0.1, 0.2))),
    denoising=tuple(Denoising(anneal=(first, 5), clip=950) for first in (50, 30, 25)),
)

BOUNDS = {"balanced": 0.6, "fast": 1.0}
"""On the upper end of the 95% interval."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=50, help="of a seed")
    parser.add_argument("--seeds", type=int, default=8, help="of the search")
    parser.add_argument("--unseen", type=int, default=16, help="seeds of the last judgement")
    parser.add_argument("--cpu-time", action="store_true", help="for a machine that others use")
    given = parser.parse_args()
    mar, console = load_fashion_mar(), Console(width=200)
    found = tune_recipe(
        mar,
        garment_generation(mar, given.images),
        FrechetJudge.of(load_judge()),
        max_loss=max(BOUNDS.values()),
        base=BASE,
        ingredients=INGREDIENTS,
        seeds=range(given.seeds),
        unseen=range(1000, 1000 + given.unseen),
        out=given.out / "search",
        progress=True,
        cpu_time=given.cpu_time,
        compile=False,
    )
    console.print(found)
    outcomes = [
        {"recipe": recipe_to_dict(own.recipe), "speedup": own.speedup, "loss": asdict(own.loss)}
        for own in found.outcomes
    ]
    write_json(given.out / "outcomes.json", {"images": given.images * given.unseen, "outcomes": outcomes})
    for name, bound in BOUNDS.items():
        try:
            save_recipe(found.within(bound), given.out / f"{name}.json")
        except TuningError as error:
            console.print(f"{name}: {error}")


if __name__ == "__main__":
    main()

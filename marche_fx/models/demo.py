"""The demo: garments generated from the same seeds, exactly and by recipes that come along, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from ..api.recipes import recipe_for
from ..api.transform import transform
from ..denoising import Denoising
from ..errors import ArgumentError
from ..recipes import Recipe
from ..refresh import FullRefresh
from ..reporting.picture import check_picture, save_figure
from . import CLASSES, MAR, Judge, load_fashion_mar, load_judge
from .generation import Draws, Generation, Sampling, draw, generate

EXACT = "exact"


@dataclass(frozen=True)
class Run:
    """One generation of the demo.

    Attributes:
        denoising_steps: of the head; two numbers where they fall, from the first decoding step to the last.
        recipe: None for the original.
    """

    name: str
    steps: int
    denoising_steps: tuple[int, ...]
    generation: Generation
    recipe: Recipe | None = None


def run_demo(
    out: Path,
    *,
    mar: MAR | None = None,
    per_class: int = 4,
    steps: int = 32,
    cfg: float = 3.0,
    temperature: float = 0.8,
    seed: int = 0,
    recipes: Sequence[str] = ("balanced", "fast"),
    compile: bool = False,
    console: Console | None = None,
) -> None:
    """Generate with ``mar``, the bundled one when omitted; compare, print tables and write the picture to ``out``.

    Args:
        steps: of the original, and of recipes that say no number. recipes: presets or JSON files.

    Raises:
        ArgumentError: there is nothing to generate, no folder to write the picture to, or its name has another ending.
    """
    if per_class < 1:
        raise ArgumentError(f"at least one image of each class is needed, got {per_class}")
    check_picture(out)
    console = console or Console()
    mar, judge = mar or load_fashion_mar(), load_judge()
    own_recipes = {Path(word).stem: recipe_for(mar, word) for word in recipes}
    labels = torch.arange(len(CLASSES)).repeat(per_class)
    draws = draw(mar, labels, torch.Generator().manual_seed(seed))
    sampling = Sampling(steps, cfg, temperature)

    console.print("Full refresh against the original, 10 images, 4 steps ...")
    few = draws.first(len(CLASSES))
    full = transform(mar, refresh=FullRefresh(), compile=compile)
    original, same = (generate(model, few, Sampling(4, cfg, temperature), progress=False) for model in (mar, full))
    difference = float((original.images - same.images).abs().max())
    console.print(f"  largest difference of a pixel (-1..1): {difference:.1e}")

    console.print(f"{len(labels)} images, guidance {cfg:g}, temperature {temperature:g}: {EXACT}, {steps} steps ...")
    runs = [Run(EXACT, steps, denoising_steps(mar, None), generate(mar, draws, sampling))]
    for name, recipe in own_recipes.items():
        runs.append(run_recipe(name, recipe, mar, draws, sampling, compile=compile, console=console))

    console.print(timing_table(runs))
    console.print(quality_table(runs, draws, judge))
    console.print(f"Full refresh differs from the original by at most {difference:.1e}.")
    for run in runs:
        if run.recipe is not None:
            console.print(f"{run.name}: {run.recipe}", markup=False, highlight=False)
    save_picture(out, runs, per_class)
    console.print(f"Picture: {out.resolve()}")


def run_recipe(
    name: str, recipe: Recipe, mar: MAR, draws: Draws, sampling: Sampling, *, compile: bool, console: Console
) -> Run:
    """The same images by a recipe."""
    optimized = transform(mar, recipe=recipe, compile=compile)
    own = replace(sampling, steps=recipe.steps or sampling.steps)
    ordered = recipe.arguments(mar, len(draws.labels), torch.Generator().manual_seed(0)).get("orders")
    draws = draws if ordered is None else replace(draws, orders=ordered)
    with console.status(f"{name}: capturing steps and head, and checking them against the original once ..."):
        # All of them: a capture is for so many images.
        generate(optimized, draws, own, progress=False)
    console.print(f"{name}, {own.steps} steps ...")
    generation = generate(optimized, draws, own)
    return Run(name, own.steps, denoising_steps(mar, recipe.denoising), generation, recipe)


def denoising_steps(mar: MAR, denoising: Denoising | None) -> tuple[int, ...]:
    """What is asked for, or the model's own number."""
    asked = () if denoising is None else denoising.counts
    return asked or (len(mar.diffloss.gen_diffusion),)


def timing_table(runs: Sequence[Run]) -> Table:
    """Seconds of each part, and of the whole, over the first run's."""
    table = Table("", *(run.name for run in runs), title="Time on this machine")
    first = runs[0].generation
    table.add_row("decoding steps", *(str(run.steps) for run in runs))
    table.add_row("denoising steps", *(" to ".join(map(str, run.denoising_steps)) for run in runs))
    shares = (1.0 if own is None else own.rows_ratio for own in (run.generation.session for run in runs))
    table.add_row("rows computed in a step", *(f"{own:.1%}" for own in shares))
    table.add_row("transformer s", *(f"{run.generation.transformer_seconds:.1f}" for run in runs))
    table.add_row("diffusion head s", *(f"{run.generation.head_seconds:.1f}" for run in runs))
    table.add_row("whole s", *(f"{run.generation.seconds:.1f}" for run in runs))
    table.add_row("times faster", *(f"{first.seconds / run.generation.seconds:.2f}x" for run in runs), style="bold")
    return table


def quality_table(runs: Sequence[Run], draws: Draws, judge: Judge) -> Table:
    """What the images show, and what is known of the recipes from many more of them."""
    table = Table("", *(run.name for run in runs), title="Quality")
    accuracies = (judge.accuracy(run.generation.images, draws.labels) for run in runs)
    table.add_row("images that show their label", *(f"{own:.1%}" for own in accuracies))
    distances = (known_loss(run) for run in runs)
    table.add_row("Frechet distance over exact, as the recipe's file has it from before (95%)", *distances)
    return table


def known_loss(run: Run) -> str:
    """What the figures in a recipe's file say; these images are too few to tell."""
    if run.recipe is None:
        return "0"
    figures = run.recipe.figures
    return f"{figures['low']:+.2f} .. {figures['high']:+.2f}" if {"low", "high"} <= set(figures) else "not known"


def save_picture(path: Path, runs: Sequence[Run], per_class: int) -> None:
    """One column a class, the rows of each run under the ones of the run before; classes in turn."""
    figure = Figure(figsize=(10, len(runs) * (1.1 * per_class + 0.4)), layout="constrained")
    parts = figure.subfigures(len(runs), 1, squeeze=False)[:, 0]
    first = runs[0].generation.seconds
    for number, (part, run) in enumerate(zip(parts, runs, strict=True)):
        seconds = run.generation.seconds
        faster = "" if run.recipe is None else f", {first / seconds:.1f} times faster"
        part.suptitle(f"{run.name}: {seconds:.1f} s{faster}")
        axes = part.subplots(per_class, len(CLASSES), squeeze=False)
        for image_number, image in enumerate(run.generation.images):
            row, column = divmod(image_number, len(CLASSES))
            cell = axes[row][column]
            cell.imshow(-image[0].cpu().numpy(), cmap="gray", vmin=-1, vmax=1)
            cell.set_axis_off()
            if row == 0 and number == 0:
                cell.set_title(CLASSES[column], fontsize=9)
    save_figure(figure, path, dpi=100)

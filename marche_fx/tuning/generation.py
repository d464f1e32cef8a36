"""Find the cheapest recipe of a whole generation within a bound on quality, on the user's own generation and judge."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from ..api.options import KNOWN_HEADS, has_known_steps, head_names, not_a_module
from ..api.transform import transform
from ..checks import called, check_callable, check_flag, check_kind, is_number, path_of, shown
from ..errors import ArgumentError
from ..passes.capture.digests import described, digest
from ..recipes import Recipe, recipe_to_dict, structure_of
from ..saving.files import weights_hash
from ..saving.fingerprint import software
from ..saving.locks import alone
from ..speed.clock import clock_for
from .head_readings import can_be_read
from .head_stage import best_heads
from .image_stage import FEWEST_SEEDS, best_recipes, judged
from .ingredients import Ingredients, usual_ingredients
from .judging import Judge, judge_of
from .notebook import Notebook
from .policy_stage import best_policies
from .recipe_trials import Generate, Models, RecipeTrials
from .tune import check_seeds
from .tuned_recipe import TunedRecipe


@torch.no_grad()
@alone("tuning a recipe")
def tune_recipe(
    model: nn.Module,
    generate: Generate,
    judge: Judge | Callable[[Any], float],
    *,
    max_loss: float,
    base: Recipe,
    ingredients: Ingredients | None = None,
    seeds: Sequence[int] = tuple(range(16)),
    unseen: Sequence[int] = tuple(range(1000, 1016)),
    out: str | Path | None = None,
    progress: bool = False,
    cpu_time: bool = False,
    **options: Any,
) -> TunedRecipe:
    """The fastest recipe whose images the judge finds worse than the original's by ``max_loss`` at most.

    In three stages, each of which keeps fewer candidates and looks at them more closely. Heads: denoising and reuse by
    the time of drawing tokens that the original read, and their energy distance from its own draws. Transformers:
    refresh policies by FLOPs and teacher-forced drift. Images: what is left of both, mixed with decoding steps, orders
    and counts, by time and the judge, paired with the original's on the same seeds. The last few are judged on unseen
    seeds and timed, taking turns with the original in one process.

    Args:
        generate: ``generate(model, recipe, seed)`` returns the images of one seed; the model is the original or a
            transformed one. MAR's loop takes ``**recipe.arguments(model, batch)``. A loop of one's own takes what
            ``recipe.told`` says, and opens its session where the model is not the original:
            ``with nullcontext() if model is original else marche_fx.decoding(model):``.
        judge: of images to a number of which less is better, or a `Judge`, such as
            `marche_fx.evaluate.frechet_judge.FrechetJudge`.
        max_loss: bound on the upper end of the 95% interval of the judge's difference, on the unseen seeds.
        base: what the original does: its decoding steps, and whatever else every recipe is to have.
        ingredients: what is put together; some that are built in when omitted.
        seeds: of the search; each round takes twice as many as the one before. unseen: of the last judgement.
        out: folder of measurements; a search that was ended goes on from there, as long as the original gives the same
            images to the last bit.
        cpu_time: time what one thread works, not the wall: for a machine that others use.
        options: of `transform`, beside what a recipe says.

    Raises:
        ArgumentError: seeds are too few or in common, or an ingredient contradicts ``base``.
        TuningError: no recipe meets the bound; the message says the smallest loss found.
        CheckpointError: ``out`` holds measurements of another search.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentError(not_a_module(model, "tune_recipe"))
    check_callable("generate", generate)
    if not is_number(max_loss):
        raise ArgumentError(f"max_loss must be a number, got {shown(max_loss)}")
    check_kind("base", base, Recipe)
    if ingredients is not None:
        check_kind("ingredients", ingredients, Ingredients)
    check_seeds(seeds, unseen, least=FEWEST_SEEDS)
    check_flag("progress", progress)
    check_flag("cpu_time", cpu_time)
    folder = None if out is None else path_of("out", out)
    judging = judge_of(judge)

    def generated(own: nn.Module, recipe: Recipe, seed: int) -> Any:
        return called("generate, with a model, a recipe and a seed,", generate, own, recipe, seed)

    refuse_unknown(options)
    if "recipe" in options or {"refresh", "denoising", "reuse"} & set(options):
        raise ArgumentError("a search makes the recipes itself: give what all of them have as base")
    console = Console(quiet=not progress, soft_wrap=True, highlight=False, markup=False)

    def say(line: str) -> None:
        console.print(line)

    heads = head_names(model, options.get("head"), default=KNOWN_HEADS if has_known_steps(model) else ())
    head = next((own for own in heads if can_be_read(model, own)), None)
    base = replace(base, model=structure_of(model))
    if ingredients is None:
        ingredients = usual_ingredients(base, has_head=head is not None, takes_orders=has_known_steps(model))
    clock = clock_for(device_of(model), cpu_time=cpu_time)
    notebook = Notebook(folder, key_of(model, generated, judging, base, seeds[0]))
    models = Models(model, {"verify": False, **options})
    trials = RecipeTrials(models, generated, judging, base, notebook, clock)
    policies = best_policies(trials, ingredients.policies(base), ingredients.middle_steps(base), seeds, options, say)
    own_heads = best_heads(trials, head, ingredients.heads(base), seeds[0], say)
    finalists = best_recipes(trials, ingredients.mixed(base, policies, own_heads), seeds, max_loss, say)
    say(f"judging {len(finalists)} recipes on unseen seeds")
    outcomes = judged(trials, finalists, unseen, say)
    if not any(own.loss.high <= max_loss for own in outcomes) and base not in finalists:
        say("none is within the bound: judging the original's own recipe")
        outcomes += judged(trials, [base], unseen, say)
    return TunedRecipe.of(outcomes, max_loss)


def refuse_unknown(options: Mapping[str, Any]) -> None:
    """Raise for what `transform` takes no argument for."""
    known = inspect.signature(transform).parameters
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ArgumentError(f"neither a search nor transform has an argument {', '.join(unknown)}")


def key_of(model: nn.Module, generate: Generate, judge: Judge, base: Recipe, seed: int) -> dict[str, Any]:
    """What measurements of a search must agree in."""
    images = generate(model, base, seed)
    return {
        "model": structure_of(model),
        "weights": weights_hash(model),
        "original": recipe_to_dict(base),
        "images of the original": digest(described(images)),
        "judgement of them": digest(described(judge.statistics(images))),
        **software(),
    }


def device_of(model: nn.Module) -> torch.device:
    return next((own.device for own in model.parameters()), torch.device("cpu"))

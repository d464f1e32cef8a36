"""Find the cheapest recipe of a whole generation within a bound on quality, on the user's own generation and judge."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from ..api.options import KNOWN_HEADS, has_known_steps, head_names
from ..errors import ArgumentError
from ..passes.capture.digests import described, digest
from ..recipes import Recipe, recipe_to_dict, structure_of
from ..recipes.recipe import brief
from ..refresh import RefreshPolicy
from ..saving.files import weights_hash
from ..saving.fingerprint import software
from ..speed.clock import clock_for
from .energy import distance_between
from .halving import Measured, best, halve
from .heads import can_be_read, drawn, read_head
from .ingredients import Ingredients, usual_ingredients
from .judging import Judge, judge_of
from .notebook import Measurement, Notebook
from .recipe_trials import Generate, Models, RecipeTrials
from .replay import record, replay
from .tuned_recipe import Outcome, TunedRecipe

HEADS, POLICIES, FINALISTS = 3, 3, 4
"""So many are left of heads and of policies, each looked at by itself, and of recipes before the last judgement."""

TOKENS, DRAWS = 10, 12
"""Of each decoding step so many tokens are drawn so often in the first round; twice as many tokens in the next."""

FEWEST_SEEDS = 2
"""Of the first round of images."""


@torch.no_grad()
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
            transformed one. MAR's loop takes ``**recipe.arguments(model, batch)``; a loop of one's own, inside
            ``with marche_fx.decoding(model):``, takes what ``recipe.told`` says.
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
    if len(seeds) < FEWEST_SEEDS or len(unseen) < FEWEST_SEEDS or set(seeds) & set(unseen):
        raise ArgumentError(f"seeds and unseen must be two or more each and none in common, got {seeds} and {unseen}")
    if "recipe" in options or {"refresh", "denoising", "reuse"} & set(options):
        raise ArgumentError("a search makes the recipes itself: give what all of them have as base")
    console = Console(quiet=not progress, soft_wrap=True, highlight=False, markup=False)

    def say(line: str) -> None:
        console.print(line)

    heads = head_names(model, options.get("head"), default=KNOWN_HEADS if has_known_steps(model) else ())
    heads = tuple(own for own in heads if can_be_read(model, own))
    base = replace(base, model=structure_of(model))
    if ingredients is None:
        ingredients = usual_ingredients(base, has_head=bool(heads), takes_orders=has_known_steps(model))
    judging, clock = judge_of(judge), clock_for(device_of(model), cpu_time=cpu_time)
    models = Models(model, {"verify": False, **options})
    search = Search(
        models, generate, base, Notebook(out, key_of(model, generate, judging, base, seeds[0])), say, heads, options
    )
    trials = RecipeTrials(models, generate, judging, base, search.notebook, clock)
    policies, mixed_heads = search.policies(ingredients, seeds), search.heads(ingredients, seeds, clock)
    recipes = ingredients.mixed(base, policies, mixed_heads)
    finalists = race(trials, recipes, seeds, max_loss, say)
    say(f"judging {len(finalists)} recipes on unseen seeds")
    outcomes = judged(trials, finalists, unseen, say)
    if not any(own.loss.high <= max_loss for own in outcomes) and base not in finalists:
        say("none is within the bound: judging the original's own recipe")
        outcomes += judged(trials, [base], unseen, say)
    return TunedRecipe.of(outcomes, max_loss)


@dataclass(frozen=True)
class Search:
    """The stages that look at a part of a recipe by itself."""

    models: Models
    generate: Generate
    base: Recipe
    notebook: Notebook
    say: Callable[[str], None]
    head_names: Sequence[str]
    options: dict[str, Any]

    def policies(self, wanted: Ingredients, seeds: Sequence[int]) -> list[RefreshPolicy]:
        """Those refresh policies that cost least for their drift, on exact steps of the middle number of steps."""
        every = wanted.policies(self.base)
        if len(every) <= POLICIES:
            return every
        steps = sorted(own for own in (self.base.steps, *wanted.steps) if own is not None)
        middle = replace(self.base, steps=steps[len(steps) // 2] if steps else None)
        recordings: dict[int, Any] = {}
        known = {name: self.options.get(name) for name in ("step", "loop", "query")}

        def measured(policy: RefreshPolicy, number: int) -> Measured[RefreshPolicy]:
            seed = seeds[number]

            def measure() -> Measurement:
                if seed not in recordings:
                    recordings[seed] = record(
                        self.models.model, lambda given: self.generate(given, middle, seed), **known
                    )
                found = replay(recordings[seed], policy)
                return numbers(cost=found.flops_ratio, loss=found.drift)

            name = f"{recipe_to_dict(replace(middle, refresh=policy))} {seed}"
            own = self.notebook.measured("drift", name, measure)
            self.say(f"drift {own['loss']:.4f} at {own['cost']:.3f} of the FLOPs: {policy!r}")
            return Measured(policy, float(own["cost"]), float(own["loss"]))

        return [own.candidate for own in halve(every, measured, 2, POLICIES)]

    def heads(self, wanted: Ingredients, seeds: Sequence[int], clock: Any) -> list[Recipe]:
        """``base`` with those heads that take least time for their distance from the original's draws."""
        every = wanted.heads(self.base)
        if not self.head_names or len(every) <= HEADS:
            return every
        (head, *_), model = self.head_names, self.models.model
        exact: dict[int, torch.Tensor] = {}
        readings: list[Any] = []

        def of_round(number: int) -> list[Any]:
            if not readings:
                readings.extend(read_head(model, head, lambda: self.generate(model, self.base, seeds[0])))
            every_so_many = max(1, len(readings) // 8)
            return [own.tokens(TOKENS * 2**number) for own in readings[every_so_many // 2 :: every_so_many]]

        def measured(recipe: Recipe, number: int) -> Measured[Recipe]:
            def measure() -> Measurement:
                asked = of_round(number)
                if number not in exact:
                    exact[number] = drawn(model, head, asked, DRAWS, seed=0)
                own = self.models.of(recipe)
                drawn(own, head, asked[:1], DRAWS, seed=1)
                clock.settle()
                begin = clock.mark()
                tokens = drawn(own, head, asked, DRAWS, seed=1)
                end = clock.mark()
                clock.settle()
                distance = distance_between(tokens, exact[number])
                return numbers(cost=clock.seconds(begin, end), loss=distance.energy, error=distance.energy_error)

            own = self.notebook.measured("head", f"{recipe_to_dict(recipe)} {number}", measure)
            self.say(
                f"head {own['cost']:.2f} s, energy distance {own['loss']:.4f} +- {own['error']:.4f}: "
                f"{brief(recipe.denoising)}, {brief(recipe.reuse)}"
            )
            # Below nothing is chance.
            return Measured(recipe, float(own["cost"]), max(float(own["loss"]), 0.0))

        return [own.candidate for own in halve(every, measured, 3, HEADS)]


def race(
    trials: RecipeTrials, recipes: Sequence[Recipe], seeds: Sequence[int], max_loss: float, say: Callable[[str], None]
) -> list[Recipe]:
    """The few recipes that cost least for what the judge says of them; each round takes twice as many seeds."""
    left, count = list(recipes), FEWEST_SEEDS
    while True:
        own_seeds = seeds[:count]
        original = trials.spread(None, own_seeds)
        found = []
        for recipe in left:
            loss = (trials.spread(recipe, own_seeds) - original).interval
            seconds = trials.seconds(recipe, own_seeds)
            say(f"{len(own_seeds)} seeds: {seconds:.2f} s, {loss.low:+.3f} .. {loss.high:+.3f}: {recipe}")
            # One that is surely worse than the bound has no more to say.
            if loss.low <= max_loss:
                found.append(Measured(recipe, seconds, loss.estimate))
        is_last = len(found) <= FINALISTS or count >= len(seeds)
        found = best(found, FINALISTS if is_last else max(FINALISTS, -(-len(found) // 2)))
        left = [own.candidate for own in found]
        if is_last:
            return left
        count *= 2


def judged(
    trials: RecipeTrials, recipes: Sequence[Recipe], seeds: Sequence[int], say: Callable[[str], None]
) -> list[Outcome]:
    """What recipes come to on these seeds, taking turns with the original."""
    turns = []
    for seed in seeds:
        turns.append(trials.turn(recipes, seed))
        say(f"seed {seed}: " + ", ".join(f"{turns[-1][f'{own} seconds']:.2f} s" for own in range(len(recipes) + 1)))
    spreads = [
        trials.judge.spread([own[f"{number} statistics"] for own in turns]) for number in range(len(recipes) + 1)
    ]
    found = []
    for number, recipe in enumerate(recipes, 1):
        speedup = statistics.median(float(own["0 seconds"] / own[f"{number} seconds"]) for own in turns)
        found.append(Outcome(recipe, speedup, (spreads[number] - spreads[0]).interval))
    return found


def numbers(**values: float) -> Measurement:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


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

"""Whole recipes by their time and what the judge says of their images."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from ..recipes import Recipe
from .halving import Measured, best
from .recipe_trials import RecipeTrials
from .tuned_recipe import Outcome

FINALISTS = 4
"""So many are left for the last judgement."""

FEWEST_SEEDS = 2
"""Of the first round."""


def best_recipes(
    trials: RecipeTrials, recipes: Sequence[Recipe], seeds: Sequence[int], max_loss: float, say: Callable[[str], None]
) -> list[Recipe]:
    """Those that cost least for their loss; each round takes twice as many seeds, and keeps half of the recipes."""
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
    turns, numbers = [], range(len(recipes) + 1)
    for seed in seeds:
        turns.append(trials.turn(recipes, seed))
        say(f"seed {seed}: " + ", ".join(f"{turns[-1][f'{number} seconds']:.2f} s" for number in numbers))
    original, *spreads = (trials.judge.spread([own[f"{number} statistics"] for own in turns]) for number in numbers)
    speedups = (
        statistics.median(float(own["0 seconds"] / own[f"{number} seconds"]) for own in turns) for number in numbers[1:]
    )
    return [
        Outcome(recipe, speedup, (spread - original).interval)
        for recipe, speedup, spread in zip(recipes, speedups, spreads, strict=True)
    ]

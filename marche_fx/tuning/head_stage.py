"""Heads by the time that drawing tokens takes and how far what they draw is from what the original does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

from torch import Tensor

from ..recipes import Recipe, recipe_to_dict
from ..recipes.recipe import brief
from .energy import distance_between
from .halving import Measured, halve
from .head_readings import Reading, drawn, read_head
from .notebook import Measurement, numbers
from .recipe_trials import RecipeTrials

HEADS, ROUNDS = 3, 3
"""So many are left, after so many rounds."""

READINGS, TOKENS, DRAWS = 8, 10, 12
"""Of so many decoding steps so many tokens are drawn so often in the first round; twice as many tokens in the next."""


def best_heads(
    trials: RecipeTrials, head: str | None, heads: Sequence[Recipe], seed: int, say: Callable[[str], None]
) -> list[Recipe]:
    """Those of ``heads`` that take least time for their distance; all where they are few or the head is not known."""
    if head is None or len(heads) <= HEADS:
        return list(heads)
    own = HeadTrials(trials, head, seed, say)
    return [found.candidate for found in halve(heads, own.measured, ROUNDS, HEADS)]


class HeadTrials:
    """Draws what the original's head drew on a seed, again and by other heads."""

    def __init__(self, trials: RecipeTrials, head: str, seed: int, say: Callable[[str], None]) -> None:
        self.trials = trials
        self.model = trials.models.model
        self.head = head
        self.seed = seed
        self.say = say
        self.known: dict[int, Tensor] = {}

    @cached_property
    def readings(self) -> list[Reading]:
        """What the original's head is asked for in some decoding steps, evenly spaced."""
        every = read_head(self.model, self.head, lambda: self.trials.generate(self.model, self.trials.base, self.seed))
        stride = max(1, len(every) // READINGS)
        return every[stride // 2 :: stride]

    def asked(self, number: int) -> list[Reading]:
        """What is drawn in a round."""
        return [own.tokens(TOKENS * 2**number) for own in self.readings]

    def exact(self, number: int) -> Tensor:
        """What the original draws in a round: ``[K, R, C]``."""
        if number not in self.known:
            self.known[number] = drawn(self.model, self.head, self.asked(number), DRAWS, seed=0)
        return self.known[number]

    def measured(self, recipe: Recipe, number: int) -> Measured[Recipe]:
        name = f"{recipe_to_dict(recipe)} {number}"
        own = self.trials.notebook.measured("head", name, lambda: self.measure(recipe, number))
        self.say(
            f"head {own['cost']:.2f} s, energy distance {own['loss']:.4f} +- {own['error']:.4f}: "
            f"{brief(recipe.denoising)}, {brief(recipe.reuse)}"
        )
        # Below nothing is chance.
        return Measured(recipe, float(own["cost"]), max(float(own["loss"]), 0.0))

    def measure(self, recipe: Recipe, number: int) -> Measurement:
        model, asked = self.trials.models.of(recipe), self.asked(number)
        # What captures and compiles is not what drawing takes.
        drawn(model, self.head, asked[:1], DRAWS, seed=1)
        tokens, seconds = self.trials.timed(lambda: drawn(model, self.head, asked, DRAWS, seed=1))
        distance = distance_between(tokens, self.exact(number))
        return numbers(cost=seconds, loss=distance.energy, error=distance.energy_error)

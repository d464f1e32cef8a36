"""Recipes tried on a user's generation: their models, images and times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import nn

from ..api.optimization import optimization_of
from ..api.options import what_is_measured
from ..api.transform import transform
from ..recipes import Recipe, recipe_to_dict
from ..runtime.advice import TOPICS
from ..saving.files import as_text
from ..speed.clock import Clock
from .intervals import Spread
from .judging import Judge
from .notebook import Measurement, Notebook, numbers

Result = TypeVar("Result")

Generate = Callable[[nn.Module, Recipe, int], Any]
"""``generate(model, recipe, seed)``: images by the loop of the model, told what the recipe says."""


class Models:
    """The models of recipes; those that differ only in what a policy chooses, or a loop is told, are one."""

    def __init__(self, model: nn.Module, options: Mapping[str, Any]) -> None:
        self.model = model
        self.options = options
        self.known: dict[Any, nn.Module] = {}

    def of(self, recipe: Recipe | None) -> nn.Module:
        """The model of a recipe, which the next call may make that of another; the original for None."""
        if recipe is None:
            return self.model
        new = transform(self.model, recipe=recipe, **self.options)
        policies = optimization_of(new).settings.policies
        key = recipe.denoising, recipe.reuse, bool(recipe.told), what_is_measured(policies)
        own = self.known.setdefault(key, new)
        optimization = optimization_of(own)
        optimization.settings.policies.update(policies)
        optimization.recipe = recipe
        for step in optimization.steps.values():
            # Candidates that gain nothing are what a search is there to find.
            step.method.warned.update(TOPICS)
        return own


class RecipeTrials:
    """Tries recipes, each once on every seed."""

    def __init__(
        self, models: Models, generate: Generate, judge: Judge, base: Recipe, notebook: Notebook, clock: Clock
    ) -> None:
        self.models = models
        self.generate = generate
        self.judge = judge
        self.base = base
        self.notebook = notebook
        self.clock = clock
        # The original was run once to know its images.
        self.warm: set[nn.Module] = {models.model}

    def spread(self, recipe: Recipe | None, seeds: Sequence[int]) -> Spread:
        """How good the images of a recipe on these seeds are; of the original's for None."""
        return self.judge.spread([self.tried(recipe, seed)["statistics"] for seed in seeds])

    def seconds(self, recipe: Recipe | None, seeds: Sequence[int]) -> float:
        """The shortest time of a batch: what else the machine does only makes it longer."""
        return min(float(self.tried(recipe, seed)["seconds"]) for seed in seeds)

    def tried(self, recipe: Recipe | None, seed: int) -> Measurement:
        return self.notebook.measured("images", f"{name_of(recipe)} {seed}", lambda: self.images(recipe, seed))

    def turn(self, recipes: Sequence[Recipe], seed: int) -> Measurement:
        """The original and these recipes one after another on a seed, so that their times can be compared.

        Returns:
            By the number of each, the original's being 0, what `images` gives.
        """

        def measure() -> Measurement:
            turns = [self.images(recipe, seed) for recipe in (None, *recipes)]
            return {f"{number} {name}": own for number, found in enumerate(turns) for name, own in found.items()}

        names = "\n".join(map(name_of, recipes))
        return self.notebook.measured("turn", f"{names}\n{seed}", measure)

    def images(self, recipe: Recipe | None, seed: int) -> Measurement:
        """What is kept of the images of a seed, and the seconds that they took."""
        model = self.models.of(recipe)
        told = self.base if recipe is None else recipe
        if model not in self.warm:
            # What captures and compiles is not what the images take.
            self.generate(model, told, seed)
            self.warm.add(model)
        images, seconds = self.timed(lambda: self.generate(model, told, seed))
        return {"statistics": self.judge.statistics(images), **numbers(seconds=seconds)}

    def timed(self, run: Callable[[], Result]) -> tuple[Result, float]:
        """What ``run()`` returns, and the seconds that it took."""
        self.clock.settle()
        begin = self.clock.mark()
        found = run()
        end = self.clock.mark()
        self.clock.settle()
        return found, self.clock.seconds(begin, end)


def name_of(recipe: Recipe | None) -> str:
    """The same for equal recipes, in every process."""
    if recipe is None:
        return "the original"
    return as_text({**recipe_to_dict(recipe), "figures": {}})

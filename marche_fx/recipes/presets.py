"""Recipes that come along, for the bundled MARs; their files hold what was measured of them."""

from __future__ import annotations

import functools
from pathlib import Path

from torch import nn

from ..errors import RecipeError
from .recipe import Recipe
from .saving import load_recipe
from .structure import structure_of

TASKS = ("garments", "emoji")
"""What the bundled MARs draw; a folder of recipes for each."""

EXACT = "exact"
"""Known for any model: nothing is left out."""

NAMES = (EXACT, "balanced", "fast")


def preset_for(name: str, model: nn.Module) -> Recipe:
    """The recipe of this name for a model.

    Raises:
        RecipeError: there is none of this name, or none for this model.
    """
    structure = structure_of(model)
    for task in TASKS:
        found = bundled(name, task)
        if found.model in (None, structure):
            return found
    raise RecipeError(
        f"the recipes {name!r} are of the bundled MARs of {' and '.join(TASKS)}, and {type(model).__name__} is another "
        "model. Find one by marche_fx.tune_recipe, or pass refresh= and denoising= yourself"
    )


@functools.cache
def bundled(name: str, task: str = TASKS[0]) -> Recipe:
    """The recipe of this name of the bundled MAR of a task.

    Raises:
        RecipeError: there is none.
    """
    if name == EXACT:
        return Recipe()
    if name not in NAMES:
        raise RecipeError(f"unknown recipe {name!r}; there are {', '.join(NAMES)}, and the path of a JSON file")
    return load_recipe(Path(__file__).parent / task / f"{name}.json")

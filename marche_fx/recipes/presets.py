"""Recipes that come along, for the bundled MAR of garments; their files hold what was measured of them."""

from __future__ import annotations

import functools
from pathlib import Path

from torch import nn

from ..errors import RecipeError
from .recipe import Recipe
from .saving import load_recipe
from .structure import structure_of

FOLDER = Path(__file__).parent / "garments"

EXACT = "exact"
"""Known for any model: nothing is left out."""

NAMES = (EXACT, "balanced", "fast")


def preset_for(name: str, model: nn.Module) -> Recipe:
    """The recipe of this name for a model.

    Raises:
        RecipeError: there is none of this name, or none for this model.
    """
    found = bundled(name)
    if name != EXACT and found.model != structure_of(model):
        raise RecipeError(
            f"the recipe {name!r} is of the bundled MAR of garments, and {type(model).__name__} is another "
            "model. Find one by marche_fx.tune_recipe, or pass refresh= and denoising= yourself"
        )
    return found


@functools.cache
def bundled(name: str) -> Recipe:
    """The recipe of this name of the bundled MAR.

    Raises:
        RecipeError: there is none.
    """
    if name == EXACT:
        return Recipe()
    if name not in NAMES:
        raise RecipeError(f"unknown recipe {name!r}; there are {', '.join(NAMES)}, and the path of a JSON file")
    return load_recipe(FOLDER / f"{name}.json")

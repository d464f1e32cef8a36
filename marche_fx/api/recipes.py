"""A recipe given to `transform`: found by name or file, checked against the model, and told to the loop."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ArgumentError, RecipeError
from ..recipes import Recipe, load_recipe, preset_for, structure_of
from ..recipes.loop import ARGUMENTS, loop_arguments
from .optimization import Optimization


def recipe_for(model: nn.Module, given: Recipe | str | Path) -> Recipe:
    """The recipe that was given, by name, by file or as it is, if it is one for ``model``.

    Raises:
        ArgumentError: it is none. CheckpointError: the file holds none.
        RecipeError: it was tuned for another model, or there is none of this name.
    """
    if isinstance(given, Recipe):
        found = given
    elif isinstance(given, Path) or (isinstance(given, str) and given.endswith(".json")):
        found = load_recipe(given)
    elif isinstance(given, str):
        found = preset_for(given, model)
    else:
        raise ArgumentError(f"recipe must be a Recipe, the path of one, or a preset's name, got {given!r}")
    if found.model is not None and found.model != structure_of(model):
        raise RecipeError(
            f"the recipe was tuned for a model of other modules or shapes of weights than this {type(model).__name__}: "
            "what it costs in quality is not known here. Find one by marche_fx.tune_recipe; or take it nevertheless, "
            "by transform(model, recipe=dataclasses.replace(recipe, model=None))"
        )
    return found


def refuse_both(**given: object) -> None:
    """Raise if something is given beside a recipe that the recipe says.

    Raises:
        ArgumentError: so it is.
    """
    names = [name for name, value in given.items() if value is not None]
    if names:
        raise ArgumentError(
            f"a recipe says {', '.join(names)} already: give one or the other. Another refresh in a recipe is "
            "dataclasses.replace(recipe, refresh=...)"
        )


def told_loop(optimized: nn.Module, name: str, optimization: Optimization) -> Callable[..., Any]:
    """A known loop method whose arguments are those of the recipe where its caller gives none.

    Raises:
        RecipeError: the loop takes not all that the recipe says.
    """
    loop: Callable[..., Any] = optimized.__dict__[name]
    signature = inspect.signature(loop)
    refuse_untellable(optimization, signature, name)
    optimization.told_loops += (name,)
    warned: set[str] = set()

    @functools.wraps(loop)
    def run(*args: Any, **kwargs: Any) -> Any:
        recipe = optimization.recipe
        assert recipe is not None
        if not recipe.told:
            return loop(*args, **kwargs)
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            # The loop itself tells what is wrong with the call.
            return loop(*args, **kwargs)
        for argument in others(recipe, given):
            if argument not in warned:
                warned.add(argument)
                warnings.warn(
                    f"{name} is called with {argument}={given[argument]!r}, which holds, and the recipe says another. "
                    f"Leave {argument} out to follow the recipe: {recipe}",
                    stacklevel=2,
                )
        return loop(*args, **kwargs, **unsaid(recipe, optimization.model, given))

    return run


def unsaid(recipe: Recipe, model: nn.Module, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of MAR's loop that the recipe says and a call with ``given`` ones does not."""
    # Counts are for the steps that the call takes.
    steps = {"steps": given[ARGUMENTS["steps"]]} if ARGUMENTS["steps"] in given else {}
    batch = next(iter(given.values()))
    own = loop_arguments(recipe.told | steps, model, batch, given.get("generator"))
    return {argument: value for argument, value in own.items() if argument not in given}


def others(recipe: Recipe, given: Mapping[str, Any]) -> list[str]:
    """Arguments of a call that the recipe says otherwise, as far as they are numbers and words."""
    said = {ARGUMENTS[name]: value for name, value in recipe.told.items() if name not in ("order", "counts")}
    return [argument for argument, value in said.items() if argument in given and given[argument] != value]


def refuse_untellable(optimization: Optimization, signature: inspect.Signature, name: str) -> None:
    assert optimization.recipe is not None
    told = optimization.recipe.arguments(optimization.model, 1, torch.Generator())
    missing = sorted({*told} - {*signature.parameters})
    if missing:
        raise RecipeError(
            f"{type(optimization.model).__name__}.{name} takes no {' and no '.join(missing)}, and the recipe says it. "
            "Leave it out, by dataclasses.replace(recipe, order=None, counts=None)"
        )


def recipe_notes(optimization: Optimization) -> list[str]:
    """The recipe in words, and what of it the user's own loop is to be told."""
    recipe = optimization.recipe
    if recipe is None:
        return []
    notes = [str(recipe)]
    if recipe.told and not optimization.told_loops:
        told = ", ".join(f"{name}={value!r}" for name, value in recipe.told.items())
        notes.append(
            f"Of it your loop is to be told {told}: marche_fx does not know its arguments. `recipe.told` has them, "
            "`marche_fx.orders` makes orders and counts of the names"
        )
    return notes

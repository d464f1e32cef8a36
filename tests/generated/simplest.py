"""The simplest recipe that fails as another does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from tests.generated.check import verdict
from tests.generated.coherent import coherent
from tests.generated.recipe import Layer, Recipe


def simpler(recipe: Recipe) -> Iterator[Recipe]:
    """Recipes with one thing less."""
    for number in range(len(recipe.layers)):
        if len(recipe.layers) > 1:
            yield coherent(replace(recipe, layers=recipe.layers[:number] + recipe.layers[number + 1 :]))
    for field in fields(Recipe):
        if field.name not in ("layers", "seed") and getattr(recipe, field.name) != field.default:
            changed: dict[str, Any] = {field.name: field.default}
            yield coherent(replace(recipe, **changed))
    for number, layer in enumerate(recipe.layers):
        for field in fields(Layer):
            for value in dict.fromkeys([field.default, "none"]):
                is_choice = value == field.default or (field.name == "mlp" and value == "none")
                if is_choice and getattr(layer, field.name) not in (value, "none" if field.name == "mlp" else value):
                    changed = {field.name: value}
                    layers = (*recipe.layers[:number], replace(layer, **changed), *recipe.layers[number + 1 :])
                    yield coherent(replace(recipe, layers=layers))


def kind_of(why: str) -> str:
    """A failure without its numbers."""
    return why.split(" in step")[0].split(":")[0].split(" off by")[0] + (" oracle" if "oracle" in why else "")


def simplest(recipe: Recipe) -> Recipe:
    """A recipe that fails likewise, with as little as possible."""
    kind = kind_of(verdict(recipe)[1])
    tried = {recipe}
    while True:
        for other in simpler(recipe):
            if other not in tried:
                tried.add(other)
                found, why = verdict(other)
                if found != "passed" and kind_of(why) == kind:
                    recipe = other
                    break
        else:
            return recipe

"""`Recipe` as plain values and JSON files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..checks import check_kind, shown
from ..denoising import denoising_from_dict, denoising_to_dict
from ..errors import ArgumentError, CheckpointError
from ..head.saving import head_reuse_from_dict, head_reuse_to_dict
from ..plain import read_plain, write_plain
from ..refresh import policy_from_dict, policy_to_dict
from .recipe import Recipe

KIND, FORMAT = "Recipe", 1

PARTS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "refresh": (policy_to_dict, policy_from_dict),
    "denoising": (denoising_to_dict, denoising_from_dict),
    "reuse": (head_reuse_to_dict, head_reuse_from_dict),
    "figures": (dict, dict),
}
"""Arguments that are no plain values: how each is written and read."""


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """Its arguments as plain values.

    Raises:
        ArgumentError: it is no recipe, or holds a policy of the user's own.
    """
    check_kind("recipe", recipe, Recipe)
    found: dict[str, Any] = {"kind": KIND, "format": FORMAT}
    for own in fields(recipe):
        value = getattr(recipe, own.name)
        write = PARTS[own.name][0] if own.name in PARTS else None
        found[own.name] = value if write is None or value is None else write(value)
    return found


def recipe_from_dict(values: Any) -> Recipe:
    """The opposite of `recipe_to_dict`.

    Raises:
        CheckpointError: the values are not those of a recipe.
    """
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise CheckpointError(f"expected a recipe, got {shown(values)}")
    if values.get("format") != FORMAT:
        raise CheckpointError(f"a recipe of format {shown(values.get('format'))}; this version reads {FORMAT}")
    given = {name: value for name, value in values.items() if name not in ("kind", "format")}
    known = {own.name for own in fields(Recipe)}
    unknown = sorted(map(shown, set(given) - known))
    if unknown:
        raise CheckpointError(f"a recipe has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    try:
        read = {
            name: PARTS[name][1](value) if name in PARTS and value is not None else value
            for name, value in given.items()
        }
        return Recipe(**read)
    except (
        ArgumentError,
        AttributeError,
        CheckpointError,
        OverflowError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise CheckpointError(f"no {KIND} can be made of {shown(values)}: {error}") from error


def save_recipe(recipe: Recipe, path: str | Path) -> None:
    """Write it as JSON; raises as `recipe_to_dict` does."""
    write_plain(path, recipe_to_dict(recipe))


def load_recipe(path: str | Path) -> Recipe:
    """Read what `save_recipe` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or no recipe.
    """
    return recipe_from_dict(read_plain(path, "a recipe"))

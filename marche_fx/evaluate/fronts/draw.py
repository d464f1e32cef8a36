"""Features of every way and batch, in a folder to which later ways and images can be added."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ...api.recipes import recipe_for
from ...errors import ArgumentError
from ..folder import Folder
from ..generation import generate_missing
from ..points import Point, parse_point, recipe_point
from ..settings import Settings, identity
from ..tasks import Task

RECIPE = "recipe:"


def ways_of(words: Sequence[str], task: Task) -> list[Point]:
    """The ways that words mean, each once; ``recipe:fast`` and ``recipe:own.json`` are recipes.

    Raises:
        ArgumentError: there is no such way, or none at all.
        RecipeError: a recipe is of another model.
    """
    ways = [
        recipe_point(word.removeprefix(RECIPE), recipe_for(task.mar, word.removeprefix(RECIPE)))
        if word.startswith(RECIPE)
        else parse_point(word)
        for word in words
    ]
    if not ways:
        raise ArgumentError("there is no way to draw: name some by --ways")
    return list({way.folder: way for way in ways}.values())


def open_front(out: Path, ways: Sequence[Point], settings: Settings, task: Task) -> Folder:
    """The folder of a front, whose results may be of any number of images.

    Raises:
        ArgumentError: it holds results of other settings, weights or another version; or the last batch would be
            smaller, which more images could not go on with.
    """
    if settings.images % settings.batch:
        raise ArgumentError(
            f"{settings.images} images are no whole number of batches of {settings.batch}: more images could not go "
            "on with the last one"
        )
    own = identity(settings, **task.models)
    folder = Folder(out, {name: value for name, value in own.items() if name != "images"})
    for way in ways:
        folder.claim(way)
    return folder


def draw(folder: Folder, ways: Sequence[Point], settings: Settings, task: Task, console: Console) -> None:
    """Draw what the folder does not hold yet; a kill costs one batch."""
    generate_missing(folder, ways, settings, task, console)

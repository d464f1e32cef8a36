"""Files that somebody changed, whole and sealed as if `save` had written them."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from marche_fx.saving.captures import HEADING
from marche_fx.saving.container import read_container, write_container


def changed(path: Path, change: Callable[[Any], None]) -> None:
    """Change what a file holds."""
    values, rest = read_container(path, HEADING)
    change(values)
    write_container(path, HEADING, values, rest)


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in nested lists and objects."""
    parts = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, own in parts:
        yield (*path, key)
        yield from places(own, (*path, key))


def at(values: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        values = values[key]
    return values


def mutated(values: Any, draws: random.Random, others: list[Any]) -> Any:
    """A copy with one thing in it replaced, taken away, doubled or exchanged for another."""
    found = copy.deepcopy(values)
    place = draws.choice([*places(found)])
    holder, key = at(found, place[:-1]), place[-1]
    way = draws.randrange(4)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif way == 2:
        holder[key] = copy.deepcopy(at(found, draws.choice([*places(found)])))
    else:
        holder[key] = draws.choice(others)
    return found

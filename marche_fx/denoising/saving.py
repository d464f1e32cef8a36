"""`Denoising` as words, plain values and JSON files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ..checks import check_kind, shown
from ..errors import ArgumentError, CheckpointError
from ..plain import as_plain, from_plain, read_plain, write_plain
from .settings import Denoising
from .solvers import ANCESTRAL, SOLVERS
from .spacing import SPACINGS

WORDS: dict[str, Denoising] = {
    "disa": Denoising(anneal=(50, 5), clip=950),
}
"""Those that have a name."""

KNOWN: dict[str, type] = {Denoising.__name__: Denoising}


def parse_denoising(word: str) -> Denoising:
    """What a word means: ``25``, ``quadratic:25``, ``dpm++2m:logsnr:8``, ``50-5``, ``disa``, or a JSON file.

    Parts between colons, in any order, are a number of steps, two for annealing, a spacing and a solver.

    Raises:
        ArgumentError: there is no such word. CheckpointError: the file holds no `Denoising`.
    """
    if word in WORDS:
        return WORDS[word]
    if word.endswith(".json"):
        return load_denoising(word)
    found: dict[str, Any] = {}
    for part in word.split(":"):
        name, value = meaning(part)
        if name is None or name in found:
            known = ", ".join((*WORDS, *SPACINGS, ANCESTRAL, *SOLVERS))
            raise ArgumentError(
                f"{word!r} is no denoising: expected a number of steps (25) or two (50-5), and words joined by colons, "
                f"as in quadratic:25, of {known}; or a JSON file"
            )
        found[name] = value
    return Denoising(**found)


def meaning(part: str) -> tuple[str | None, Any]:
    """The argument that a part of a word is, and its value."""
    if part.isdecimal():
        return "steps", int(part)
    if re.fullmatch(r"\d+-\d+", part):
        first, last = part.split("-")
        return "anneal", (int(first), int(last))
    if part in SPACINGS:
        return "spacing", part
    return ("solver", part) if part in (ANCESTRAL, *SOLVERS) else (None, part)


def denoising_to_dict(denoising: Denoising) -> dict[str, Any]:
    """Its arguments as plain values."""
    check_kind("denoising", denoising, Denoising)
    found: dict[str, Any] = as_plain(denoising, KNOWN)
    return found


def denoising_from_dict(values: Any) -> Denoising:
    """The opposite of `denoising_to_dict`, of what JSON makes of it too.

    Raises:
        CheckpointError: the values are not those of a `Denoising`.
    """
    found = from_plain(values, KNOWN)
    if not isinstance(found, Denoising):
        raise CheckpointError(f"expected a Denoising, got {shown(values)}")
    return found


def save_denoising(denoising: Denoising, path: str | Path) -> None:
    """Write it as JSON."""
    write_plain(path, denoising_to_dict(denoising))


def load_denoising(path: str | Path) -> Denoising:
    """Read what `save_denoising` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or no `Denoising`.
    """
    return denoising_from_dict(read_plain(path, "a denoising"))

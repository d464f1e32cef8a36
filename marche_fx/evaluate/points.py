"""Points of an evaluation, each a way to draw a whole generation, written as one word.

A refresh policy or a rival's, a number of decoding steps, how the head draws tokens, or all of a recipe; and a set of
seeds.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from ..recipes import Recipe, recipe_to_dict
from ..refresh import (
    PRESETS,
    DriftRefresh,
    InterleavedRefresh,
    NeighbourRefresh,
    RandomRefresh,
    RefreshPolicy,
    SelectiveRefresh,
    StalenessRefresh,
    load_policy,
    policy_to_dict,
    preset,
)
from ..rivals import REFRESH, RIVALS, Policies
from .heads import OWN_HEAD, HeadChoice, chosen, split_options

EXACT = "exact"

PLAIN: dict[str, Callable[[], RefreshPolicy | None]] = {
    EXACT: lambda: None,
    "nothing": lambda: SelectiveRefresh(0.0),
    "default": SelectiveRefresh,
    **{name: partial(preset, name) for name in PRESETS if name != EXACT},
}

BY_SHARE: dict[str, Callable[[float], RefreshPolicy]] = {
    "selective": SelectiveRefresh,
    "marche": partial(SelectiveRefresh, age=False, sites="all"),
    "random": RandomRefresh,
    "oldest": StalenessRefresh,
    "drift": DriftRefresh,
    "neighbour": NeighbourRefresh,
}

BY_STEPS: dict[str, Callable[[int], RefreshPolicy]] = {
    "interleaved": InterleavedRefresh,
    "periodic": lambda every: SelectiveRefresh(0.0, every=every),
}

WHOLE = tuple(name for name in RIVALS if name != "emigm")
"""Rivals that draw a whole generation by MAR's own loop; eMIGM's computes no unconditional half in some steps."""

SUFFIXES = re.compile(r"(?P<name>.+?)(?:@(?P<steps>\d+))?(?:#(?P<seeds>\d+))?")


@dataclass(frozen=True)
class Point:
    """One way to draw a whole generation.

    Attributes:
        name: of the policy, such as ``selective:0.1``, or its file; of a rival. kind: what points of a curve share.
        policy: None for the exact transformer, and for a rival's, which `policies_in` tells.
        steps: decoding steps, where they are not the evaluation's.
        seeds: number of its set of seeds, from 1; points of one set share labels, orders and noise.
        recipe: what it does beside its policy and steps, where that is more.
        head: how it draws tokens, where no recipe says it. options: the words for that.
    """

    name: str
    kind: str
    policy: RefreshPolicy | None
    steps: int | None = None
    seeds: int = 1
    recipe: Recipe | None = None
    head: HeadChoice = OWN_HEAD
    options: tuple[str, ...] = ()

    @property
    def spec(self) -> str:
        """``selective:0.1@20#2``, ``exact@64+denoising=quadratic:25``."""
        return self.name + self.suffix

    @property
    def label(self) -> str:
        """The same for a picture: a file by its name alone."""
        return (self.kind if self.is_file else self.name) + self.suffix

    @property
    def suffix(self) -> str:
        steps = "" if self.steps is None else f"@{self.steps}"
        return "+".join((steps + (f"#{self.seeds}" if self.seeds > 1 else ""), *self.options))

    def policies_in(self, steps: int) -> Policies | None:
        """What it refreshes in a generation of so many decoding steps; None where the transformer is exact."""
        return REFRESH[self.name](steps) if self.name in REFRESH else self.policy

    @property
    def folder(self) -> str:
        """A name for its results, another for each other point."""
        name = self.name
        if self.is_file:
            content = json.dumps(self.policy_values, sort_keys=True).encode()
            name = f"{self.kind}-{hashlib.sha256(content).hexdigest()[:8]}"
        steps = "" if self.steps is None else f"-steps{self.steps}"
        seeds = f"-seeds{self.seeds}" if self.seeds > 1 else ""
        return "-".join(re.sub(r"[^\w.]+", "-", own) for own in (name + steps + seeds, *self.options))

    @property
    def is_file(self) -> bool:
        return self.name.partition(":")[0] not in (*PLAIN, *BY_SHARE, *BY_STEPS, *WHOLE)

    @property
    def is_exact(self) -> bool:
        """Whether it is what the others are compared with, on any set of seeds."""
        return self.policy is None and self.steps is None and self.head == OWN_HEAD

    @property
    def fraction(self) -> float | None:
        """The share of the token axis that its policy refreshes in a step, where that is one number."""
        share = getattr(self.policy, "fraction", None)
        return float(share) if isinstance(share, (int, float)) else None

    @property
    def policy_values(self) -> dict[str, Any] | None:
        """The policy, with how the head draws where that is said, or all of the recipe, as plain values."""
        if self.recipe is not None:
            return recipe_to_dict(self.recipe)
        policy = None if self.policy is None else policy_to_dict(self.policy)
        return policy if self.head == OWN_HEAD else {"policy": policy, **self.head.values}


def parse_points(specs: Sequence[str]) -> list[Point]:
    """The points of these words, each once; see `parse_point`."""
    return list({point.folder: point for point in map(parse_point, specs)}.values())


def parse_point(spec: str) -> Point:
    """The point that a word means: ``exact``, ``selective:0.1``, ``periodic:8``, ``policy.json``, ``recap``.

    ``@20`` after it stands for 20 decoding steps, ``#2`` for the second set of seeds, ``+denoising=quadratic:25`` and
    ``+reuse=balanced`` for how the head draws tokens.

    Raises:
        ArgumentError: there is no such policy, or its number is missing or out of its range.
        CheckpointError: its file holds no policy.
    """
    word, options = split_options(spec)
    parts = SUFFIXES.fullmatch(word)
    if parts is None:
        raise ArgumentError(f"{spec!r} is no policy; {choices()}")
    name, steps, seeds = parts["name"], parts["steps"], int(parts["seeds"] or 1)
    if steps == "0" or seeds < 1:
        raise ArgumentError(f"{spec!r}: decoding steps (@) and sets of seeds (#) are counted from 1")
    kind, _, number = name.partition(":")
    point = Point(name, *policy_of(name, kind, number), steps=int(steps) if steps else None, seeds=seeds)
    head = HeadChoice(name) if name in WHOLE else OWN_HEAD
    for option in options:
        head = chosen(head, option, name)
    return replace(point, head=head, options=tuple(options))


def recipe_point(word: str, recipe: Recipe) -> Point:
    """The point of a recipe that a word, a preset's name or a file, means."""
    stem = Path(word).stem
    return Point(f"recipe:{word}", f"recipe-{stem}", recipe.refresh, recipe.steps, recipe=recipe)


def policy_of(name: str, kind: str, number: str) -> tuple[str, RefreshPolicy | None]:
    """The kind of a point, and its policy."""
    if name in WHOLE:
        return name, None
    if kind in PLAIN and not number:
        return kind, PLAIN[kind]()
    try:
        if kind in BY_SHARE:
            return kind, BY_SHARE[kind](float(number))
        if kind in BY_STEPS:
            return kind, BY_STEPS[kind](int(number))
    except ValueError as error:
        if isinstance(error, ArgumentError):
            raise ArgumentError(f"{name}: {error}") from error
        raise ArgumentError(f"{name!r} lacks a number; {choices()}") from None
    if name.endswith(".json") or Path(name).is_file():
        return Path(name).stem, load_policy(name)
    raise ArgumentError(f"there is no policy {name!r}; {choices()}")


def choices() -> str:
    known = [*PLAIN, *(f"{kind}:SHARE" for kind in BY_SHARE), *(f"{kind}:STEPS" for kind in BY_STEPS)]
    return (
        f"those that exist are {', '.join((*known, *WHOLE))} and the path of a policy's JSON file, each with @20 "
        "behind it for 20 decoding steps and #2 for the second set of seeds, then +denoising=quadratic:25 and "
        "+reuse=balanced"
    )

"""Calls that are wrong in one argument, and what they are made with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

import marche_fx
from marche_fx.models.mar import MAR
from tests.around import EAGER, X, optimize, transformer
from tests.models.tiny import tiny_mar

NAN = math.nan


class NoText:
    """An object of no use to anybody, which has no short name either."""


NOTHING = NoText()

# Values that are none of their kind.
COUNT = (None, "3", 1.5, NAN, -1, True, [2], NOTHING)
NUMBER = (None, "0.1", NAN, True, [0.1], NOTHING)
SHARE = (*NUMBER, -0.1, 1.5, math.inf)
FLAG = (None, "yes", 1, NOTHING)
TEXT = (None, 3, "", b"name", ["name"], NOTHING)
PATH = (None, 3, True, ["a"], b"a.json", NOTHING)
MODEL = (None, 3, "model", nn.Linear, SimpleNamespace(forward=print))
CALLABLE = (None, 3, "f", [print])


@dataclass
class World:
    """What calls are made with, made anew where one may leave something behind."""

    folder: Path
    model: nn.Module = field(default_factory=transformer)
    mar: MAR = field(default_factory=lambda: tiny_mar().eval())

    def __post_init__(self) -> None:
        self.optimized = optimize(self.model, EAGER)
        with torch.no_grad():
            self.optimized(X)
        marche_fx.save_policy(marche_fx.FullRefresh(), self.policy)
        marche_fx.save_denoising(marche_fx.Denoising(), self.folder / "denoising.json")
        marche_fx.save_head_reuse(marche_fx.HeadReuse(), self.folder / "reuse.json")
        marche_fx.save_recipe(marche_fx.Recipe(), self.folder / "recipe.json")
        self.files = {own.name for own in self.folder.iterdir()}

    @property
    def policy(self) -> Path:
        return self.folder / "policy.json"


@dataclass(frozen=True)
class Of:
    """A value that is only known in a world."""

    make: Callable[[World], Any]
    name: str


def given(value: Any, world: World) -> Any:
    return value.make(world) if isinstance(value, Of) else value


@dataclass(frozen=True)
class Public:
    """Something public, the arguments of a call of it that works, and values that its arguments must not have.

    Attributes:
        words: for an argument what a message may call it where that is not its name.
    """

    name: str
    call: Callable[..., Any]
    good: Mapping[str, Any]
    bad: Mapping[str, Sequence[Any]]
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class BadCall:
    """A call of something public that is wrong in one argument."""

    public: Public
    argument: str
    value: Any

    @property
    def name(self) -> str:
        shown = self.value.name if isinstance(self.value, Of) else repr(self.value)
        return f"{self.public.name}-{self.argument}={shown.split(' at 0x')[0][:40]}"

    @property
    def words(self) -> tuple[str, ...]:
        """One of which the message must hold."""
        return self.public.words.get(self.argument, (self.argument,))

    def make(self, world: World) -> Any:
        arguments = {**self.public.good, self.argument: self.value}
        return self.public.call(**{name: given(value, world) for name, value in arguments.items()})


MODEL_OF = Of(lambda world: world.model, "model")
MAR_OF = Of(lambda world: world.mar, "mar")
OPTIMIZED = Of(lambda world: world.optimized, "optimized")
MISSING = Of(lambda world: world.folder / "nowhere" / "file.json", "a file in no folder")
FOLDER = Of(lambda world: world.folder, "a folder")
ABSENT = Of(lambda world: world.folder / "absent.json", "a missing file")


def path(name: str) -> Of:
    return Of(lambda world: world.folder / name, name)


FULL = marche_fx.FullRefresh()

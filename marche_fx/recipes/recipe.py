"""What a whole generation does to be cheaper, as one object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import nn

from ..denoising import Denoising
from ..denoising.solvers import SOLVERS
from ..errors import ArgumentError
from ..head.policy import HeadReuse
from ..orders import COUNTS, ORDERS
from ..refresh import FullRefresh, RefreshPolicy
from .loop import ARGUMENTS, loop_arguments

CFG_SCHEDULES = ("linear", "constant")


@dataclass(frozen=True)
class Recipe:
    """Decoding steps, refreshed tokens, denoising, reuse, order and guidance of one generation; exact by default.

    What is None is as the model and its caller have it.

    Attributes:
        refresh: of the transformer. denoising, reuse: of the diffusion head; see `transform`. Guidance in a part of the
            denoising is ``denoising.guidance``, its unconditional half at every so many calls ``reuse.guidance``.
        steps: decoding steps. order: of the tokens, a name of `orders.ORDERS`. counts: of tokens in each step, a name
            of `orders.COUNTS`.
        cfg: guidance scale. cfg_schedule: ``"linear"`` or ``"constant"``. temperature: of the head.
        model: the structure of the model that it was tuned for, see `structure_of`; any when None.
        figures: what was measured of it.

    Raises:
        ArgumentError: an argument is of the wrong type or out of its range, or two contradict each other.
    """

    refresh: RefreshPolicy = field(default_factory=FullRefresh)
    denoising: Denoising | None = None
    reuse: HeadReuse | None = None
    steps: int | None = None
    order: str | None = None
    counts: str | None = None
    cfg: float | None = None
    cfg_schedule: str | None = None
    temperature: float | None = None
    model: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        check_kind("refresh", self.refresh, RefreshPolicy)
        for name, kind in (("denoising", Denoising), ("reuse", HeadReuse), ("model", str)):
            if getattr(self, name) is not None:
                check_kind(name, getattr(self, name), kind)
        for name, known in (("order", ORDERS), ("counts", COUNTS), ("cfg_schedule", CFG_SCHEDULES)):
            own = getattr(self, name)
            if own is not None and (not isinstance(own, str) or own not in known):
                raise ArgumentError(f"{name} of a recipe must be one of {', '.join(known)}, got {own!r}")
        if self.steps is not None and (type(self.steps) is not int or self.steps < 1):
            raise ArgumentError(f"steps of a recipe must be a whole number of at least 1, got {self.steps!r}")
        for name in ("cfg", "temperature"):
            own = getattr(self, name)
            if own is not None and not (is_finite(own) and own > 0):
                raise ArgumentError(f"{name} of a recipe must be a number above 0, got {own!r}")
        if not isinstance(self.figures, Mapping) or not all(
            isinstance(name, str) and is_finite(value) for name, value in self.figures.items()
        ):
            raise ArgumentError(f"figures of a recipe must map words to numbers, got {self.figures!r}")
        self.refuse_contradictions()

    def refuse_contradictions(self) -> None:
        asked = self.denoising
        if asked is None:
            return
        if asked.solver in SOLVERS and self.temperature not in (None, 1):
            raise ArgumentError(
                f"the solver {asked.solver!r} adds no noise, so there is none that temperature={self.temperature:g} "
                'could scale: a recipe takes temperature=1 with it, or the solver "ancestral"'
            )
        if None not in (asked.decoding_steps, self.steps) and asked.decoding_steps != self.steps:
            raise ArgumentError(
                f"denoising falls over {asked.decoding_steps} decoding steps, and the recipe decodes in {self.steps}"
            )

    @property
    def told(self) -> dict[str, Any]:
        """What a decoding loop has to be told, by name; the rest `transform` does by itself."""
        return {name: value for name in ARGUMENTS if (value := getattr(self, name)) is not None}

    def arguments(self, model: nn.Module, batch: int, generator: torch.Generator | None = None) -> dict[str, Any]:
        """The same as arguments of MAR's loop: ``model.sample_tokens(batch, **recipe.arguments(model, batch))``.

        Args:
            generator: of the order, where that is random; else the global seed.

        Raises:
            RecipeError: the model has no grid of tokens, or not as many as the recipe has steps.
        """
        return loop_arguments(self.told, model, batch, generator) if self.told else {}

    def __str__(self) -> str:
        """What it says, without what is None or the default."""
        parts = {name: getattr(self, name) for name in ("refresh", "denoising", "reuse")}
        told = [f"{name}={brief(value)}" for name, value in (parts | self.told).items() if value is not None]
        return f"Recipe({', '.join(told)})"


def brief(value: Any) -> str:
    """A dataclass by those of its arguments that are not the defaults."""
    if not is_dataclass(value) or isinstance(value, RefreshPolicy):
        return repr(value)
    own = [
        (each.name, getattr(value, each.name)) for each in fields(value) if getattr(value, each.name) != each.default
    ]
    return f"{type(value).__name__}({', '.join(f'{name}={brief(each)}' for name, each in own)})"


def check_kind(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise ArgumentError(f"{name} of a recipe must be a {kind.__name__}, got {value!r}")


def is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

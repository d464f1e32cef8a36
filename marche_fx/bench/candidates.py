"""Variants made ready to run: the model of each, its steps, and those of them that are timed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from ..api.optimization import optimization_of
from ..api.options import KNOWN_STEPS, what_is_measured
from ..api.transform import transform
from ..errors import ArgumentError
from ..refresh import RefreshPolicy
from ..rivals.emigm import is_guided
from .compiler import compiled_original
from .schedule import spread
from .settings import Settings
from .variants import LAZYMAR, Variant
from .workload import Workload

PolicyByStep = dict[str, RefreshPolicy]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A variant of a workload.

    Attributes:
        workload: its own decoding steps. timed: numbers of those that it runs.
        model: what it calls; variants that measure the same share one, and so what was captured and compiled.
        policies: of each step method; empty for the original.
    """

    variant: Variant
    workload: Workload
    model: nn.Module = field(repr=False)
    timed: tuple[int, ...]
    policies: PolicyByStep = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Decoding steps of a generation."""
        return len(self.workload.steps)


def make_candidates(workload: Workload, variants: Sequence[Variant], settings: Settings) -> list[Candidate]:
    """What to run for each variant.

    Raises:
        ArgumentError: a variant needs what the workload has not.
    """
    models = Models(workload)
    found = []
    for variant in variants:
        own = steps_of(workload, variant)
        every = 1 if settings.all_steps or variant.has_state or not own.is_cut_anywhere else settings.every
        model, policies = models.of(variant, len(own.steps))
        found.append(Candidate(variant, own, model, spread(len(own.steps), every), policies))
    return found


def steps_of(workload: Workload, variant: Variant) -> Workload:
    """The workload in the variant's number of decoding steps."""
    if variant.name.startswith(LAZYMAR) and not set(KNOWN_STEPS) <= set(workload.step_methods):
        raise ArgumentError(
            f"{variant.name} is a schedule for {' and '.join(KNOWN_STEPS)}, and {workload.name} has "
            f"{' and '.join(workload.step_methods)}"
        )
    if variant.is_of_the_head and not workload.has_head:
        raise ArgumentError(
            f"{variant.name} says how a head draws tokens, and the head of {workload.name} is not known"
        )
    if variant.steps is None and not variant.is_guided_in_part:
        return workload
    if workload.in_steps is None or workload.guided_where is None:
        raise ArgumentError(
            f"{variant.name} needs a model whose schedule is known; the steps of {workload.name} were recorded, and "
            "others are for its own loop to make"
        )
    if variant.is_guided_in_part:
        return workload.guided_where(is_guided)
    assert variant.steps is not None
    return workload.in_steps(variant.steps)


class Models:
    """The models of one workload's variants, each made once."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.known: dict[Any, nn.Module] = {}

    def of(self, variant: Variant, steps: int) -> tuple[nn.Module, PolicyByStep]:
        """The model of a variant in so many decoding steps, and the policies to run it under."""
        original, wanted = self.workload.model, variant.policies_in(steps)
        if wanted is None:
            if not variant.compile:
                return original, {}
            compiled = compiled_original(original, self.workload.step_methods, variant.mode)
            return self.known.setdefault(variant.mode, compiled), {}
        new = transform(
            original,
            refresh=wanted,
            step=self.workload.step,
            loop=self.workload.loop,
            query=self.workload.query,
            compile=variant.compile,
            verify=False,
            cuda_graphs=variant.has_graphs,
        )
        policies = optimization_of(new).settings.policies
        key = variant.compile, variant.has_graphs, what_is_measured(policies)
        return self.known.setdefault(key, new), dict(policies)

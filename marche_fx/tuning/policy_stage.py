"""Refresh policies by FLOPs and teacher-forced drift, on the steps of exact generations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ..recipes import recipe_to_dict
from ..refresh import RefreshPolicy
from .halving import Measured, halve
from .notebook import Measurement, numbers
from .recipe_trials import RecipeTrials
from .replay import Recording, record, replay

POLICIES, ROUNDS = 3, 2
"""So many are left, after so many rounds, each on another seed."""


def best_policies(
    trials: RecipeTrials,
    policies: Sequence[RefreshPolicy],
    steps: int | None,
    seeds: Sequence[int],
    options: Mapping[str, Any],
    say: Callable[[str], None],
) -> list[RefreshPolicy]:
    """Those that cost least for their drift; all where they are few.

    Args:
        steps: decoding steps of the exact generations. options: of `transform`.
    """
    if len(policies) <= POLICIES:
        return list(policies)
    own = PolicyTrials(trials, steps, seeds, options, say)
    return [found.candidate for found in halve(policies, own.measured, ROUNDS, POLICIES)]


class PolicyTrials:
    """Replays exact steps under policies."""

    def __init__(
        self,
        trials: RecipeTrials,
        steps: int | None,
        seeds: Sequence[int],
        options: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        self.trials = trials
        self.recipe = replace(trials.base, steps=steps)
        self.seeds = seeds
        self.options = {name: options.get(name) for name in ("step", "loop", "query")}
        self.say = say
        self.recordings: dict[int, Recording] = {}
        self.transformed: dict[Any, nn.Module] = {}
        """What serves policies of every round, see `Recording.candidates`."""

    def recording(self, number: int) -> Recording:
        """The exact generation of a round."""
        if number not in self.recordings:
            self.recordings[number] = record(
                self.trials.models.model,
                lambda given: self.trials.generate(given, self.recipe, self.seeds[number]),
                **self.options,
                candidates=self.transformed,
            )
        return self.recordings[number]

    def measured(self, policy: RefreshPolicy, number: int) -> Measured[RefreshPolicy]:
        name = f"{recipe_to_dict(replace(self.recipe, refresh=policy))} {self.seeds[number]}"
        own = self.trials.notebook.measured("drift", name, lambda: self.measure(policy, number))
        self.say(f"drift {own['loss']:.4f} at {own['cost']:.3f} of the FLOPs: {policy!r}")
        return Measured(policy, float(own["cost"]), float(own["loss"]))

    def measure(self, policy: RefreshPolicy, number: int) -> Measurement:
        found = replay(self.recording(number), policy)
        return numbers(cost=found.flops_ratio, loss=found.drift)

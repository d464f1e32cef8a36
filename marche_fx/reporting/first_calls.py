"""What `explain` tells of a loop: of the first call that it makes of each step method."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..api.optimization import optimization_of
from ..api.transform import transform
from ..errors import ArgumentError
from ..lazy.tensor import resolved
from .report import Report, explain


class AllExplainedError(Exception):
    """Every step method was called, so that the loop need not go on."""


@torch.no_grad()
def explain_first_calls(
    model: nn.Module, run: Callable[[nn.Module], Any], *, active: float = 0.1, speed: bool = False, **options: Any
) -> list[Report]:
    """`explain` of the first call of each step method that ``run`` makes; it is ended after the last of them.

    Args:
        run: decodes once with the model that it is given. active: share of tokens to take as active. speed: as of
            `explain`. options: of `transform`.

    Raises:
        ArgumentError: ``run`` calls no step method. Others as `explain`.
    """
    optimized = transform(model, refresh="exact", compile=False, verify=False, **options)
    steps, found = optimization_of(optimized).steps, dict[str, Report]()

    def watched(name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def call(*args: Any, **kwargs: Any) -> Any:
            if name not in found:
                # What an earlier method returned waits until it is read.
                given, named = resolved((args, kwargs))
                found[name] = explain(model, *given, step=name, active=active, speed=speed, **named)
            if len(found) == len(steps):
                raise AllExplainedError
            return step(*args, **kwargs)

        return call

    for name, step in steps.items():
        optimized.__dict__[name] = watched(name, step)
    with contextlib.suppress(AllExplainedError):
        run(optimized)
    if not found:
        raise ArgumentError(f"run called none of the step methods of {type(model).__name__}: {', '.join(steps)}")
    return list(found.values())

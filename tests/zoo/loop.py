"""A decoding of an entry's model with nothing passed: what its user is told."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import marche_fx
from marche_fx.api.optimization import optimization_of
from marche_fx.api.programs import Programs
from marche_fx.reporting.session_report import SessionReport
from marche_fx.runtime import program as runtime

from .captured import Captured, tensors

STEPS = 8


def token(tensor: Tensor, tokens: int, number: int, dim: int = 1) -> tuple[Any, ...]:
    """The index of one token of an argument or a result: of a picture a patch, else along ``dim``."""
    side = math.isqrt(tokens)
    if tensor.ndim == 4 or (tensor.ndim == 3 and not tensor.is_floating_point()):
        patch, place = tensor.shape[-1] // side, number % side
        return (..., slice(patch), slice(place * patch, (place + 1) * patch))
    return (*[slice(None)] * dim, slice(number, number + 1))


@torch.no_grad()
def told(own: Captured) -> tuple[list[str], SessionReport]:
    """What is warned of a loop that changes one token in each step, and reads one; and what its session computed."""
    optimized = marche_fx.transform(own.model, compile=False, verify=False)
    (step,) = optimization_of(optimized).steps.values()
    # Capturing takes most of the time, so all run on one plan.
    planned = runtime.Program(
        own.program.plan,
        own.model,
        signals=step.policy.signals,
        compile=False,
        skip_unread=step.method.skips_unread,
        headed=True,
    )
    step.captures.programs = Programs([planned])
    (args, kwargs), generator = own.given, torch.Generator().manual_seed(6)
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (args, kwargs))
    entering = tensors((args, kwargs))[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with marche_fx.decoding(optimized):
            for number in range(STEPS):
                result = pytree.tree_leaves(optimized(*args, **kwargs))[0]
                rows = 1 if result.shape[1] == own.tokens else 2
                result[token(result, own.tokens, number, rows)].sum()
                place = token(entering, own.tokens, number)
                entering[place] = tensors(own.arguments(generator))[0][place]
    session = marche_fx.report(optimized).session
    assert session is not None
    return [str(own.message) for own in caught if issubclass(own.category, UserWarning)], session

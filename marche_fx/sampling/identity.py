"""What images come from: equal for runs whose images are equal."""

from __future__ import annotations

import inspect
import json
import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from .. import version
from ..api.optimization import optimization_of
from ..errors import ArgumentError
from ..marks import ATTRIBUTE
from ..passes.capture.arguments import PLAIN
from ..passes.capture.digests import described, digest
from ..recipes import structure_of
from ..saving.files import weights_hash
from ..saving.fingerprint import digest_of, fingerprint


def identity_of(model: nn.Module, generate: Callable[..., Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Model, loop and versions.

    Of the model its structure, its weights and its code; of ``generate`` its code and the plain values that it closes
    over. What else it reads, such as globals and files, is not seen: ``settings`` say that.

    Raises:
        ArgumentError: ``settings`` cannot be written as JSON.
    """
    is_transformed = hasattr(model, ATTRIBUTE)
    original = optimization_of(model).current() if is_transformed else model
    assigned = (
        frozenset().union(*(step.captures.assigned for step in optimization_of(model).steps.values()))
        if is_transformed
        else frozenset()
    )
    try:
        told = json.loads(json.dumps(dict(settings)))
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"settings must be a dict of what JSON can write, got {settings!r}") from error
    return {
        "model": type(original).__name__,
        "structure": structure_of(original),
        "weights": weights_hash(original),
        "code": digest_of(fingerprint(original, without=assigned)),
        "transformed": transformed(model) if is_transformed else None,
        "generate": digest(*loop_parts(generate)),
        "settings": told,
        "device": next(original.parameters()).device.type,
        "versions": {
            "marche_fx": version.__version__,
            "torch": torch.__version__,
            "Python": platform.python_version(),
        },
    }


def loop_parts(generate: Callable[..., Any]) -> Iterator[str]:
    """A loop's code, and the plain values that it closes over or, where it is an object, holds."""
    yield described(generate)
    cells = inspect.getclosurevars(generate).nonlocals if inspect.isfunction(generate) else {}
    held = {} if inspect.isroutine(generate) else getattr(generate, "__dict__", {})
    for name, value in sorted({**cells, **held}.items()):
        if isinstance(value, PLAIN):
            yield f"{name} {described(value)}"


def transformed(model: nn.Module) -> dict[str, Any]:
    """What `transform` was told of a model, as far as its images depend on it."""
    optimization = optimization_of(model)
    settings = optimization.settings
    return {
        "refresh": {name: repr(policy) for name, policy in settings.policies.items()},
        "denoising": None if optimization.denoising is None else str(optimization.denoising),
        "reuse": {path: repr(step.reuse) for path, step in optimization.heads.items()},
        "recipe": None if optimization.recipe is None else str(optimization.recipe),
        "query": None if settings.query is None else digest(described(settings.query)),
        "tolerance": dict(settings.tolerance),
        "cache_dtype": None if settings.cache_dtype is None else str(settings.cache_dtype),
        "monitor": None if settings.monitor is None else repr(settings.monitor),
        "compile": settings.compile,
    }

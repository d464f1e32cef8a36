"""What `transform` is given, checked and completed: which methods, which policies, how far inputs may move."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..checks import check_count, check_not_negative, shown
from ..errors import ArgumentError
from ..passes.graph.source import is_within
from ..refresh.builtin import SelectiveRefresh
from ..refresh.policy import RefreshPolicy
from ..refresh.presets import preset
from ..refresh.signals import Signal
from ..runtime.graphs.store import Graphs

KNOWN_STEPS = ("forward_mae_encoder", "forward_mae_decoder")


KNOWN_LOOPS = ("sample_tokens",)


KNOWN_HEADS = ("diffloss",)


KNOWN_DENOISERS = ("diffloss.net.forward", "diffloss.net.forward_with_cfg")
"""Names of MAR and its descendants; any other model's step is ``forward``."""


CACHE_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
"""What cached rows can be rounded to."""


def has_known_steps(model: nn.Module) -> bool:
    """Whether it is a MAR or a descendant of one, some of which have a decoder alone."""
    steps, loops = methods_among(model, KNOWN_STEPS), methods_among(model, KNOWN_LOOPS)
    return steps == KNOWN_STEPS or (steps == KNOWN_STEPS[-1:] and loops == KNOWN_LOOPS)


def methods_among(model: nn.Module, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if callable(getattr(model, name, None)))


def has_known_denoisers(model: nn.Module) -> bool:
    """Whether it has the head of a MAR."""
    head = getattr(model, KNOWN_HEADS[0], None)
    return has_known_steps(model) and callable(getattr(getattr(head, "net", None), "forward_with_cfg", None))


def default_steps(model: nn.Module) -> tuple[str, ...]:
    return methods_among(model, KNOWN_STEPS) if has_known_steps(model) else ("forward",)


def policies_of(refresh: object, steps: Sequence[str]) -> dict[str, RefreshPolicy]:
    """The policy of each step method, in their order."""
    default = SelectiveRefresh() if refresh is None else preset(refresh) if isinstance(refresh, str) else refresh
    found: dict[Any, Any] = dict(default) if isinstance(default, Mapping) else dict.fromkeys(steps, default)
    if set(found) != set(steps):
        raise ArgumentError(
            f"refresh must give a policy for each of {', '.join(steps)}, got {', '.join(map(str, found))}"
        )
    for policy in found.values():
        if not isinstance(policy, RefreshPolicy):
            raise ArgumentError(f"refresh must be a refresh policy, such as SelectiveRefresh(), got {policy!r}")
        check_attributes(policy)
    return {name: found[name] for name in steps}


def check_attributes(policy: RefreshPolicy) -> None:
    """Raise if a policy of the user's own has attributes that cannot be."""
    name = type(policy).__name__
    check_not_negative(f"tolerance of {name}", policy.tolerance)
    check_count(f"exact_sites of {name}", policy.exact_sites)
    if not isinstance(policy.signals, tuple) or not all(isinstance(own, Signal) for own in policy.signals):
        raise ArgumentError(f"signals of {name} must be a tuple of signals, got {shown(policy.signals)}")


def what_is_measured(policies: Mapping[str, RefreshPolicy]) -> tuple[Any, ...]:
    """Equal for policies by step method whose captured steps can serve one another: they measure the same."""
    numbers = {id(policy): number for number, policy in enumerate(policies.values())}
    return tuple((own.signals, own.exact_sites, numbers[id(own)]) for own in policies.values())


def not_a_module(given: object, taker: str = "transform") -> str:
    """Why an object is no model: of a pipeline, the modules that it holds."""
    kind = type(given).__name__
    held = [name for name, own in getattr(given, "__dict__", {}).items() if isinstance(own, nn.Module)]
    if not held:
        return f"{taker} takes a torch.nn.Module as its model, got {kind}"
    called = "transformer" if "transformer" in held else held[0]
    return (
        f"{taker} takes the torch.nn.Module that is called in each step, got {kind}, which holds {', '.join(held)}. "
        f"Transform that one and put it back: pipe.{called} = marche_fx.transform(pipe.{called})"
    )


def names_of(names: str | Sequence[str], argument: str) -> tuple[str, ...]:
    """One name or several, each once.

    Raises:
        ArgumentError: they are no texts, or one stands twice.
    """
    found = (names,) if isinstance(names, str) else names
    if not isinstance(found, Sequence) or not all(isinstance(name, str) for name in found):
        raise ArgumentError(f"{argument} must be a name, or a list of names, got {shown(names)}")
    if len(set(found)) < len(found):
        raise ArgumentError(f"{argument} names one twice: {', '.join(found)}")
    return tuple(found)


def method_names(
    model: nn.Module, names: str | Sequence[str] | None, *, default: Sequence[str], argument: str
) -> tuple[str, ...]:
    if names is None:
        return tuple(default)
    found = names_of(names, argument)
    if not found and argument == "step":
        raise ArgumentError("step must name at least one method")
    for name in found:
        if not callable(getattr(model, name, None)):
            methods = [
                own for own in vars(type(model)) if not own.startswith("_") and callable(getattr(model, own, None))
            ]
            raise ArgumentError(
                f"{type(model).__name__} has no method {name!r} to be a {argument}; its own methods are "
                f"{', '.join(methods) or 'none'}"
            )
    return found


def refuse_loops_that_are_steps(model: nn.Module, steps: Sequence[str], loops: Sequence[str]) -> None:
    """Raise where one method would be both: each step would be a generation, with nothing to reuse."""
    for name in loops:
        if name in steps:
            raise ArgumentError(
                f"{name!r} of {type(model).__name__} is named as its loop, and would be its step too. Name the method "
                "that the loop calls in each step by step=; or transform the network that it calls, as in model.net = "
                "marche_fx.transform(model.net), and decode inside `with marche_fx.decoding(model.net):`"
            )


def token_wise_paths(model: nn.Module, patterns: str | Sequence[str]) -> tuple[str, ...]:
    """The outermost children that ``token_wise`` names, in the order in which the model has them.

    Raises:
        ArgumentError: a pattern fits none.
    """
    wanted, paths = names_of(patterns, "token_wise"), [path for path, _ in model.named_modules() if path]
    found: set[str] = set()
    for pattern in wanted:
        fitting = {path for path in paths if fnmatch.fnmatchcase(path, pattern)}
        found |= fitting
        if not fitting:
            near = difflib.get_close_matches(pattern, paths, 3) or paths[:3]
            raise ArgumentError(
                f"token_wise names {pattern!r}, and {type(model).__name__} has no child of that path; it has "
                f"{', '.join(near) or 'none'}"
            )
    return tuple(path for path in paths if path in found and not is_within(path, found))


def paths_within(path: str, paths: Sequence[str]) -> list[str]:
    """Those of ``paths`` that are inside of ``path``, as seen from there."""
    return [own.removeprefix(f"{path}.") for own in paths if is_within(own, [path])]


def head_names(model: nn.Module, names: str | Sequence[str] | None, *, default: Sequence[str]) -> tuple[str, ...]:
    children = dict(model.named_children())
    if names is None:
        return tuple(name for name in default if name in children)
    found = names_of(names, "head")
    for name in found:
        if name not in children:
            raise ArgumentError(
                f"{type(model).__name__} has no child {name!r} to be a head; its children are "
                f"{', '.join(children) or 'none'}"
            )
    return found


def checked_tolerance(tolerance: object) -> dict[str, float]:
    if tolerance is None:
        return {}
    if not isinstance(tolerance, Mapping) or not all(isinstance(name, str) for name in tolerance):
        raise ArgumentError(
            f"tolerance maps names of arguments to numbers, as in {{'timestep': 0.3}}, got {tolerance!r}"
        )
    for name, limit in tolerance.items():
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit >= 0:
            raise ArgumentError(f"the tolerance of {name!r} must be a number that is not negative, got {limit!r}")
    return dict(tolerance)


def checked_cache_dtype(dtype: object) -> torch.dtype | None:
    if dtype is not None and dtype not in CACHE_DTYPES:
        names = ", ".join(map(str, CACHE_DTYPES))
        raise ArgumentError(
            f"cache_dtype must be one of {names}, or None for what the model computes in, got {dtype!r}"
        )
    return dtype if isinstance(dtype, torch.dtype) else None


def graphs_for(cuda_graphs: object) -> Graphs | None:
    """What a model's steps share that run as CUDA graphs; None where they do not."""
    if cuda_graphs is not None and not isinstance(cuda_graphs, bool):
        raise ArgumentError(f"cuda_graphs must be True, False or None, got {cuda_graphs!r}")
    return Graphs() if cuda_graphs else None


def tolerance_of(child: nn.Module, tolerance: Mapping[str, float]) -> dict[str, float]:
    """What is told of arguments that a child has: of several that a loop calls, each may have others."""
    names = parameter_names(child, ("forward",))
    return {name: limit for name, limit in tolerance.items() if name in names}


def parameter_names(model: nn.Module, steps: Iterable[str]) -> set[str]:
    """Names of the parameters of all step methods; what is passed in ``**kwargs`` is known when it is."""
    found: set[str] = set()
    for name in steps:
        with contextlib.suppress(TypeError, ValueError):
            found |= set(inspect.signature(getattr(model, name)).parameters)
    return found

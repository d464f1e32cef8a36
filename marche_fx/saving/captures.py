"""What was captured and compiled of a model, kept in a file for the next process."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Set
from pathlib import Path
from typing import Any

from torch import nn

from ..api.optimization import Optimization, optimization_of
from ..checks import path_of
from ..errors import ArgumentError
from ..head.roles import Roles
from ..head.step import HeadStep
from ..head.stored import StoredHead, premises_of
from ..passes.capture.captured import Capture
from ..passes.capture.sizes import Guard
from ..passes.capture.stored import Premises, Stored
from ..passes.capture.structure import Place
from .files import DamagedError, read_sealed, write_sealed
from .fingerprint import Fingerprint, differences, fingerprint, machine, software
from .kernels import compiled_kernels, restore_kernels

HEADING = b"marche_fx captured steps 6\n"
"""With which a file begins."""

Guards = tuple[Guard, ...] | None
"""For which sizes a capture of many lengths holds; None for one of a single length."""

NAMED = 3
"""Differences that a warning names."""


def save(optimized: nn.Module, path: str | Path) -> None:
    """Write what was captured and compiled so far, steps and denoisers, to a file for `load` in another process.

    The file holds no weights. All that was compiled of steps in this process goes with it.

    Raises:
        ArgumentError: the model was not made by `transform`, no step has been called yet, one cannot be written, or
            there is no folder to write to.
    """
    # Loads the compiler, which takes a second.
    from ..passes.capture.pickled import dump_capture

    optimization, target = optimization_of(optimized), path_of("path", path)
    if not target.parent.is_dir():
        raise ArgumentError(f"there is no folder {target.parent} to save to")
    steps: dict[str, list[tuple[bytes, Premises, Guards]]] = {}
    for name, step in optimization.steps.items():
        step.drop_outdated()
        try:
            captures: list[tuple[Capture, Guards]] = [(own.capture, None) for own in step.programs]
            captures += [(own.capture, own.sizes.guards) for own in step.lengths.found]
            steps[name] = [
                (dump_capture(own), Premises.of(own.tables, step.structure), guards) for own, guards in captures
            ]
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ArgumentError(f"{type(optimized).__name__}.{name} as captured cannot be written: {error}") from error
    heads = {path: captured_heads(path, step) for path, step in optimization.heads.items()}
    if not any(steps.values()) and not any(heads.values()):
        raise ArgumentError("nothing has been captured yet, or the model was changed since; decode once, then save")
    assigned = frozenset().union(*(step.assigned for step in optimization.steps.values()))
    content = {
        "made for": made_for(optimization, assigned),
        "assigned": assigned,
        "steps": steps,
        "heads": heads,
        "compiled": compiled_kernels(),
    }
    write_sealed(target, HEADING + pickle.dumps(content))


def captured_heads(path: str, step: HeadStep) -> list[tuple[Any, Roles, bytes, Premises]]:
    """The captures of a denoiser: of which calls, which argument is what, the graph, and what it holds under."""
    from ..passes.capture.pickled import dump_any_rows

    try:
        return [
            (kind, tuple(own.denoiser.roles.values()), dump_any_rows(own.captured), premises_of(own))
            for kind, own in step.programs.items()
            if own.holds_for(step.net)
        ]
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ArgumentError(f"{path} as captured cannot be written: {error}") from error


def load(optimized: nn.Module, path: str | Path) -> bool:
    """Let the steps and denoisers of a model use what `save` wrote, still checked against the original at first.

    A file that is missing, damaged, or made for another model, machine or other software is not used, and a warning
    says why: code for another processor's instructions ends the process or computes wrong numbers.
    As everything that is pickled, read only files that you trust.

    Args:
        optimized: a transformed model, of the same structure as the one that was saved; its weights may differ.

    Returns:
        Whether the file is used.

    Raises:
        ArgumentError: the model was not made by `transform`.
    """
    # Loads the compiler, which takes a second.
    from ..passes.capture.pickled import load_any_rows, load_capture

    optimization = optimization_of(optimized)
    try:
        content = read(path_of("path", path))
        refuse_others(content["made for"], made_for(optimization, content["assigned"]))
        steps = {
            name: [Stored(load_capture(data), premises, guards) for data, premises, guards in found]
            for name, found in content["steps"].items()
        }
        heads = {
            path: [StoredHead(kind, roles, load_any_rows(data), premises) for kind, roles, data, premises in found]
            for path, found in content["heads"].items()
        }
    except UnusableError as error:
        warnings.warn(f"{path} is not used: {error}", stacklevel=2)
        return False
    restore_kernels(content["compiled"])
    for name, found in steps.items():
        if name in optimization.steps:
            optimization.steps[name].stored = found
    for path, own in heads.items():
        if path in optimization.heads:
            optimization.heads[path].stored = own
    return True


class UnusableError(Exception):
    """Why a file is of no use."""


def read(path: Path) -> dict[str, Any]:
    """What is in a file that is whole."""
    try:
        with path.open("rb") as file:
            if file.read(len(HEADING)) != HEADING:
                raise UnusableError("it was not written by this version of marche_fx.save")
        content = read_sealed(path)
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    except DamagedError as error:
        raise UnusableError("it is damaged") from error
    loaded: dict[str, Any] = pickle.loads(content[len(HEADING) :])
    return loaded


def refuse_others(before: dict[str, Fingerprint], now: dict[str, Fingerprint]) -> None:
    """Raise for other software, another machine and another model."""
    for what in now:
        changed = differences(before.get(what, {}), now[what])
        if changed:
            more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
            raise UnusableError(f"it was made for {what}: {', '.join(changed[:NAMED])}{more} differ")


def made_for(optimization: Optimization, assigned: Set[Place]) -> dict[str, Fingerprint]:
    """What captures hold for; attributes that the steps set for themselves are looked at when one is used."""
    model = optimization.current()
    return {
        "other software": software(),
        "another machine": machine(model),
        "another model": fingerprint(model, without=assigned),
    }

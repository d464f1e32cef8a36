"""What was captured and compiled of a model, kept in a file for the next process."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from ..api.transform import Optimization, optimization_of
from ..errors import ArgumentError
from ..passes.capture.pickled import dump_capture, load_capture
from .files import replacing
from .fingerprint import Fingerprint, differences, fingerprint, software
from .kernels import compiled_kernels, restore_kernels

HEADING = b"marche_fx captured steps 1\n"
"""With which a file begins; then a digest of what follows."""

NAMED = 3
"""Differences that a warning names."""


def save(optimized: nn.Module, path: str | Path) -> None:
    """Write what was captured and compiled so far to a file, which `load` reads in another process.

    The file holds no weights. All that `torch.compile` made in this process goes with it.

    Raises:
        ArgumentError: the model was not made by `transform`, no step has been called yet, one cannot be written, or
            there is no folder to write to.
    """
    optimization, target = optimization_of(optimized), Path(path)
    if not target.parent.is_dir():
        raise ArgumentError(f"there is no folder {target.parent} to save to")
    # What a step asked of its arguments is kept by functions of Python, and so captured again by the next process.
    captures = {
        name: [own.plan.original for own in step.programs if own.plan.original.branches is None]
        for name, step in optimization.steps.items()
    }
    if not any(captures.values()):
        raise ArgumentError("nothing has been captured yet; decode once, then save")
    try:
        steps = {name: [dump_capture(own) for own in found] for name, found in captures.items()}
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ArgumentError(f"a captured step of {type(optimized).__name__} cannot be written: {error}") from error
    content = pickle.dumps({"made for": made_for(optimization), "steps": steps, "compiled": compiled_kernels()})
    with replacing(target) as partial:
        partial.write_bytes(HEADING + hashlib.sha256(content).digest() + content)


def load(optimized: nn.Module, path: str | Path) -> bool:
    """Let the steps of a model use what `save` wrote; they are still checked against the original at their first call.

    A file that is missing, damaged, or made for another model or other software is not used, and a warning says why.
    As everything that is pickled, read only files that you trust.

    Args:
        optimized: a transformed model, of the same structure as the one that was saved; its weights may differ.

    Returns:
        Whether the file is used.

    Raises:
        ArgumentError: the model was not made by `transform`.
    """
    optimization = optimization_of(optimized)
    try:
        content = read(Path(path))
        refuse_others(content["made for"], made_for(optimization))
        steps = {name: [load_capture(data) for data in found] for name, found in content["steps"].items()}
    except UnusableError as error:
        warnings.warn(f"{path} is not used: {error}", stacklevel=2)
        return False
    restore_kernels(content["compiled"])
    for name, found in steps.items():
        if name in optimization.steps:
            optimization.steps[name].stored = found
    return True


class UnusableError(Exception):
    """Why a file is of no use."""


def read(path: Path) -> dict[str, Any]:
    """What is in a file that is whole."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    if not data.startswith(HEADING):
        raise UnusableError("it was not written by this version of marche_fx.save")
    found, content = data[len(HEADING) :][:32], data[len(HEADING) + 32 :]
    if hashlib.sha256(content).digest() != found:
        raise UnusableError("it is damaged")
    loaded: dict[str, Any] = pickle.loads(content)
    return loaded


def refuse_others(before: dict[str, Fingerprint], now: dict[str, Fingerprint]) -> None:
    """Raise for other software and for another model."""
    for what in now:
        changed = differences(before[what], now[what])
        if changed:
            more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
            raise UnusableError(f"it was made for {what}: {', '.join(changed[:NAMED])}{more} differ")


def made_for(optimization: Optimization) -> dict[str, Fingerprint]:
    return {"other software": software(), "another model": fingerprint(optimization.current())}

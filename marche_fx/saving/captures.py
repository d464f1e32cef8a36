"""What was captured and compiled of a model, kept in a file for the next process."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Set
from pathlib import Path
from typing import Any

from torch import nn

from ..api.optimization import Optimization, optimization_of
from ..checks import few, path_of
from ..errors import ArgumentError
from ..head.step import HeadStep
from ..head.stored import StoredHead, premises_of
from ..passes.capture.captured import Capture
from ..passes.capture.stored import Premises, Stored
from ..passes.capture.structure import Attributes, Place
from ..passes.uncollected import uncollected
from ..passes.written.constants import Constants
from ..passes.written.refused import UnusableError, malformed_is_unusable
from ..passes.written.values import VALUES, checked
from .container import read_container, tensors_as_bytes, tensors_of_bytes, write_container
from .files import remove_half_written
from .fingerprint import Fingerprint, differences, fingerprint, machine, software
from .kernels import beside, kernels_of, read_kernels, restore_kernels, write_kernels
from .locks import held

FORMAT = 9

HEADING = f"marche_fx captured steps {FORMAT}\n".encode()
"""With which a file begins."""

NAMED = 3
"""Differences that a warning names."""

PATIENCE = 60.0
"""Seconds that a writer waits for another one of the same file."""


def save_captures(optimized: nn.Module, path: str | Path) -> None:
    """Write what was captured and compiled so far, steps and denoisers; `load_captures` reads it elsewhere.

    The file holds graphs by the names of their operators and no weights; nothing in it can be executed. What was
    compiled of this model is code, and stands in a file of its own beside it, ``<path>.kernels``, signed with a secret
    of this user on this machine.

    Raises:
        ArgumentError: the model was not made by `transform`, no step has been called yet, one cannot be written, or
            there is no folder to write to.
    """
    optimization, target = optimization_of(optimized), path_of("path", path)
    if not target.parent.is_dir():
        raise ArgumentError(f"there is no folder {target.parent} to save to")
    for step in optimization.steps.values():
        step.drop_outdated()
    assigned = frozenset().union(*(step.captures.assigned for step in optimization.steps.values()))
    constants = Constants(optimization.current(), without=assigned)
    steps = {name: captured_steps(optimized, name, step, constants) for name, step in optimization.steps.items()}
    heads = {path: captured_heads(path, step, constants) for path, step in optimization.heads.items()}
    if not any(steps.values()) and not any(heads.values()):
        raise ArgumentError("nothing has been captured yet, or the model was changed since; decode once, then save")
    kernels = kernels_of(optimization)
    with held(target, PATIENCE, "saving"):
        remove_half_written(beside(target))
        digest, reason = write_kernels(target, kernels) if kernels.modules else (None, "")
        content = {
            "made for": made_for(optimization, assigned),
            "assigned": sorted(assigned),
            "steps": steps,
            "heads": heads,
            "kernels": digest,
        }
        write_container(target, HEADING, content, tensors_as_bytes(constants.tensors))
        if digest is None:
            beside(target).unlink(missing_ok=True)
    if reason:
        warnings.warn(
            f"{beside(target)} is not signed, since {reason}. It is used with "
            "load_captures(..., trust_kernels=True) only",
            stacklevel=2,
        )


def captured_steps(optimized: nn.Module, name: str, step: Any, constants: Constants) -> list[dict[str, Any]]:
    """The captures of a step: the graph, what it holds under, and for which sizes."""
    # Loads the compiler, which takes a second.
    from ..passes.written.captures import Guards, write_capture

    captures: list[tuple[Capture, Guards, Attributes]]
    captures = [(own.capture, None, step.captures.beside.get(own, {})) for own in step.programs]
    captures += [(own.capture, own.sizes.guards, step.captures.left_by_others) for own in step.captures.lengths.found]
    try:
        return [
            {
                "capture": write_capture(own, constants, guards),
                "premises": write_premises(Premises.of(own.tables, step.captures.structure, beside)),
            }
            for own, guards, beside in captures
        ]
    except TypeError as error:
        raise ArgumentError(f"{type(optimized).__name__}.{name} as captured cannot be written: {error}") from error


def captured_heads(path: str, step: HeadStep, constants: Constants) -> list[dict[str, Any]]:
    """The captures of a denoiser: of which calls, which argument is what, the graph, and what it holds under."""
    from ..passes.written.captures import write_any_rows

    try:
        return [
            {
                "calls": VALUES.write(kind),
                "roles": list(own.denoiser.roles.values()),
                "rows": write_any_rows(own.captured, constants),
                "premises": write_premises(premises_of(own)),
            }
            for kind, own in step.programs.items()
            if own.holds_for(step.net)
        ]
    except TypeError as error:
        raise ArgumentError(f"{path} as captured cannot be written: {error}") from error


def load_captures(
    optimized: nn.Module, path: str | Path, *, trust_kernels: bool = False, operators: Collection[str] = ()
) -> bool:
    """Let the steps and denoisers of a model use what `save_captures` wrote, checked against the original at first.

    A file that is missing, damaged, or made for another model, machine or other software is not used, and a warning
    says why. Nothing in it is executed, whoever wrote it: it names operators of PyTorch. The kernels beside it are
    code, and are used where they are this user's own, written on this machine; others are compiled again, and a warning
    says so.

    Args:
        optimized: a transformed model, of the same structure as the one that was saved; its weights may differ.
        trust_kernels: use the kernels whoever wrote them: they can do all that you can.
        operators: names of operators beside PyTorch's own, as ``"library::name"``, that the file may call.

    Returns:
        Whether the file is used.

    Raises:
        ArgumentError: the model was not made by `transform`.
    """
    optimization, source = optimization_of(optimized), path_of("path", path)
    try:
        with uncollected():
            content, steps, heads = read(source, optimization, frozenset(operators))
    except UnusableError as error:
        warnings.warn(f"{path} is not used: {error}", stacklevel=2)
        return False
    if content["kernels"] is not None:
        try:
            restore_kernels(read_kernels(source, content["kernels"], trust=trust_kernels))
        except UnusableError as error:
            warnings.warn(f"{beside(source)} is not used, and steps are compiled again: {error}", stacklevel=2)
    for name, found in steps.items():
        if name in optimization.steps:
            optimization.steps[name].captures.stored = found
    for path, own in heads.items():
        if path in optimization.heads:
            optimization.heads[path].stored = own
    return True


Steps = dict[str, list[Stored]]
Heads = dict[str, list[StoredHead]]


def read(path: Path, optimization: Optimization, operators: Collection[str]) -> tuple[dict[str, Any], Steps, Heads]:
    """What is in a file that is whole and made for this model.

    Raises:
        UnusableError: why it is of no use.
    """
    # Loads the compiler, which takes a second.
    from ..passes.written.captures import Reader

    with malformed_is_unusable():
        content, rest = read_container(path, HEADING)
        assigned = frozenset((str(place), str(name)) for place, name in content["assigned"])
        refuse_others(content["made for"], made_for(optimization, assigned))
        reader = Reader(Constants(optimization.current(), tensors_of_bytes(rest)), operators)
        steps = {name: [read_step(own, reader) for own in found] for name, found in content["steps"].items()}
        heads = {name: [read_head(own, reader) for own in found] for name, found in content["heads"].items()}
        checked(content["kernels"], str, type(None))
        return content, steps, heads


def read_step(written: Any, reader: Any) -> Stored:
    capture, guards = reader.capture(written["capture"])
    return Stored(capture, read_premises(written["premises"]), guards)


def read_head(written: Any, reader: Any) -> StoredHead:
    roles = tuple(written["roles"])
    if not {*roles} <= {"noisy", "time", "condition"}:
        raise UnusableError("it holds an argument of a denoiser that is none")
    kind, premises = VALUES.read(written["calls"]), read_premises(written["premises"])
    return StoredHead(kind, roles, reader.any_rows(written["rows"]), premises)


def write_premises(own: Premises) -> dict[str, Any]:
    around, left, beside = (
        [[*place, digest] for place, digest in sorted(each.items())] for each in (own.around, own.left, own.beside)
    )
    places = {"written": sorted(own.written), "varying": sorted(own.varying)}
    return {**places, "around": around, "left": left, "beside": beside}


def read_premises(written: Any) -> Premises:
    around, left, beside = (
        {(str(place), str(name)): str(digest) for place, name, digest in written[each]}
        for each in ("around", "left", "beside")
    )
    assigned, varying = (
        frozenset((str(place), str(name)) for place, name in written[each]) for each in ("written", "varying")
    )
    return Premises(assigned, varying, around, left, beside)


def refuse_others(before: dict[str, Fingerprint], now: dict[str, Fingerprint]) -> None:
    """Raise for other software, another machine and another model."""
    for what in now:
        changed = differences(before.get(what, {}), now[what])
        if changed:
            raise UnusableError(f"it was made for {what}: {few(changed, NAMED)} differ")


def made_for(optimization: Optimization, assigned: Set[Place]) -> dict[str, Fingerprint]:
    """What captures hold for; attributes that the steps set for themselves are looked at when one is used."""
    model = optimization.current()
    return {
        "other software": software(),
        "another machine": machine(model),
        "another model": fingerprint(model, without=assigned),
    }

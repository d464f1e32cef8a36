"""The state of a training in its folder: written whole, damage noticed, the state before it kept."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, TrainingError
from ..saving.files import DamagedError, read_sealed, replacing, seal
from ..saving.locks import held_folder
from .checkpoint import unpickled

STATE_FILE = "training.pt"
EARLIER_FILE = "training.earlier.pt"
"""The state before the last one, which serves where that is damaged."""


PARTS = {"model", "averaged", "optimizer", "recipe", "step", "rng"}
"""What a state has."""


class Stateful(Protocol):
    """An optimizer, as far as its state goes."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


@contextmanager
def training_folder(out: Path, doing: str) -> Iterator[None]:
    """Have a folder for a training alone, as `held_folder` does.

    Raises:
        TrainingError: there cannot be such a folder.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"the training folder {out} cannot be written: {error}") from error
    with held_folder(out, doing):
        yield


def save(
    out: Path,
    model: nn.Module,
    averaged: nn.Module,
    optimizer: Stateful,
    recipe: dict[str, Any],
    step: int,
) -> None:
    """Write the state so that a kill at any moment leaves either the last one or this one."""
    state = {
        "model": model.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
        "recipe": recipe,
        "step": step,
        "rng": torch.get_rng_state(),
        "device_rng": device_random_state(model),
    }
    try:
        with replacing(out / STATE_FILE) as partial:
            torch.save(state, partial)
            seal(partial)
            if (out / STATE_FILE).exists():
                os.replace(out / STATE_FILE, out / EARLIER_FILE)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError.
        raise TrainingError(f"the training state cannot be written to {out}: {error}") from error


def device_random_state(model: nn.Module) -> Tensor | None:
    """The state of the random numbers that the model's device draws; None on the CPU, whose is that of `torch`."""
    device = next(model.parameters()).device
    return None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(device)


def resume(
    out: Path,
    model: nn.Module,
    averaged: nn.Module,
    optimizer: Stateful,
    recipe: dict[str, Any],
    *,
    may_change: tuple[str, ...],
) -> int:
    """Load the state in ``out``, if there is one; return how many steps were done.

    Of the recipe only the fields ``may_change`` may differ from those that the run began with.
    """
    state = last_state(out)
    if state is None:
        return 0
    then = state["recipe"]
    changed = [name for name in recipe if name not in may_change and then.get(name) != recipe[name]]
    if changed:
        differences = ", ".join(f"{name} was {then.get(name)} and is {recipe[name]}" for name in changed)
        raise TrainingError(f"{out} holds a run with another recipe: {differences}. Choose another --out.")
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise TrainingError(f"{out} holds a run of another model: {error}") from error
    averaged.load_state_dict(state["averaged"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["rng"])
    device = next(model.parameters()).device
    drawn = state.get("device_rng")
    if drawn is not None and device.type != "cpu":
        torch.get_device_module(device).set_rng_state(drawn, device)
    return int(state["step"])


def last_state(out: Path) -> dict[str, Any] | None:
    """The newest state in ``out`` that is whole; None where there is none at all.

    Raises:
        TrainingError: all that there are are damaged, or the newest cannot be read.
        OutOfMemoryError: there is not the memory for it.
    """
    damaged: list[Path] = []
    for path in (out / STATE_FILE, out / EARLIER_FILE):
        try:
            state = unpickled(io.BytesIO(read_sealed(path)), path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise TrainingError(f"{path} cannot be read: {error.strerror}. It may be whole: see that it can") from error
        except (DamagedError, CheckpointError):
            state = None
        if not isinstance(state, dict) or not {*state} >= PARTS:
            damaged.append(path)
            continue
        if damaged:
            warnings.warn(f"{damaged[0]} is damaged; going on from {path}, of step {state['step']}", stacklevel=4)
            # The next state would otherwise take the place of this one, and leave the damaged one beside it.
            os.replace(path, damaged[0])
        return state
    if damaged:
        raise TrainingError(
            f"{' and '.join(map(str, damaged))} {'is' if len(damaged) == 1 else 'are'} damaged or no training state. "
            "Put a copy in its place, remove it to start anew, or choose another --out."
        )
    return None

"""Measurements by name, each made once; in a folder they outlast the process, so that a kill costs one of them."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..checks import path_of
from ..errors import ArgumentError, CheckpointError
from ..saving.files import DamagedError, read_sealed, read_sealed_json, write_sealed, write_sealed_json

Measurement = dict[str, Tensor]

KEY_FILE = "search.json"


def numbers(**values: float) -> Measurement:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


class Notebook:
    """What a search has measured.

    Args:
        folder: where to keep it; in memory alone when None. key: what measurements must agree in to be put together.

    Raises:
        CheckpointError: the folder is that of another search. ArgumentError: it cannot be written.
    """

    def __init__(self, folder: str | Path | None, key: Mapping[str, Any]) -> None:
        self.folder = None if folder is None else path_of("out", folder)
        self.known: dict[str, Measurement] = {}
        if self.folder is not None:
            open_folder(self.folder, key)

    def measured(self, stage: str, name: str, measure: Callable[[], Measurement]) -> Measurement:
        """What is known by this name; else what ``measure()`` gives, which is noted."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:24]
        place = f"{re.sub(r'[^a-z]+', '-', stage)}-{digest}"
        if place not in self.known:
            found = self.read(place)
            if found is None:
                found = {each: own.detach().cpu().contiguous() for each, own in measure().items()}
                if self.folder is not None:
                    write_sealed(self.folder / f"{place}.safetensors", save(found))
            self.known[place] = found
        return self.known[place]

    def read(self, place: str) -> Measurement | None:
        """What the folder holds, if it is whole; a warning names a file that is damaged."""
        path = None if self.folder is None else self.folder / f"{place}.safetensors"
        if path is None or not path.exists():
            return None
        try:
            found: Measurement = load(read_sealed(path))
        except (DamagedError, OSError, SafetensorError):
            warnings.warn(f"{path} is damaged and not used; what it held is measured again", stacklevel=3)
            return None
        return found


def open_folder(folder: Path, key: Mapping[str, Any]) -> None:
    """Make the folder, or check that it is of this search."""
    path = folder / KEY_FILE
    # As JSON has it, without tuples.
    own: dict[str, Any] = json.loads(json.dumps(key))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_sealed_json(path, own)
    except OSError as error:
        raise ArgumentError(f"the folder {folder} cannot be written: {error}") from error
    try:
        found = read_sealed_json(path)
    except (DamagedError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged, and nothing else says what is in the folder; name another"
        ) from error
    other = [name for name in {**found, **own} if found.get(name) != own.get(name)]
    if other:
        raise CheckpointError(
            f"{folder} holds measurements of another search: not the same {', '.join(other)}. Name another folder, or "
            "remove it."
        )

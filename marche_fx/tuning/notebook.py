"""Measurements by name, each made once; in a folder they outlast the process, so that a kill costs one of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checks import path_of
from ..errors import CheckpointError
from ..saving.files import read_sealed_tensors, write_sealed_tensors
from ..saving.folder import Differing, OwnFolder, whole

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
        self.folder = None if folder is None else SearchFolder(path_of("out", folder), key)
        self.known: dict[str, Measurement] = {}
        if self.folder is not None:
            self.folder.open()

    def measured(self, stage: str, name: str, measure: Callable[[], Measurement]) -> Measurement:
        """What is known by this name; else what ``measure()`` gives, which is noted."""
        digest = hashlib.sha256(name.encode()).hexdigest()[:24]
        place = f"{re.sub(r'[^a-z]+', '-', stage)}-{digest}"
        if place not in self.known:
            found = None if self.folder is None else self.folder.read(place)
            if found is None:
                found = {each: own.detach().cpu() for each, own in measure().items()}
                if self.folder is not None:
                    write_sealed_tensors(self.folder.file(place), found)
            self.known[place] = found
        return self.known[place]


class SearchFolder(OwnFolder):
    """The folder of a search's measurements."""

    identity_file = KEY_FILE
    advice = "Name another folder"

    def of_another(self, differing: Differing) -> CheckpointError:
        return CheckpointError(
            f"{self.path} holds measurements of another search: not the same {', '.join(differing)}. Name another "
            "folder, or remove it."
        )

    def file(self, place: str) -> Path:
        return self.path / f"{place}.safetensors"

    def read(self, place: str) -> Measurement | None:
        """A measurement that is there and whole; a warning names a file that is damaged."""
        return whole(self.file(place), read_sealed_tensors)

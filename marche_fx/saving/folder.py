"""Folders of results that all come from one thing: made, gone on with, or refused by what differs."""

from __future__ import annotations

import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..errors import ArgumentError, CheckpointError, MarcheError
from .files import DamagedError, read_sealed_json, remove_half_written, write_sealed_json

Found = TypeVar("Found")

Differing = Mapping[str, tuple[Any, Any]]
"""By name what results come from, and what they were to come from."""


class OwnFolder(ABC):
    """The folder ``path`` of results that come from ``identity``, plain values by name.

    Whoever writes there has it alone (`locks.held_folder`). Every file is written whole or not at all.

    Attributes:
        identity_file: written before all results, it says what they come from. advice: what to do where that is
            something else.
    """

    identity_file: ClassVar[str]
    advice: ClassVar[str]

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        # As JSON has it, without tuples.
        self.identity: dict[str, Any] = json.loads(json.dumps(dict(identity)))

    @abstractmethod
    def of_another(self, differing: Differing) -> MarcheError:
        """How a folder is refused whose results come from something else."""

    def make(self) -> None:
        """Make the folder if it is not there, and say in it what its results come from if nothing does.

        Raises:
            ArgumentError: it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not (self.path / self.identity_file).exists():
                self.begin()
        except OSError as error:
            raise ArgumentError(f"the folder {self.path} cannot be written: {error}") from error

    def begin(self) -> None:
        """Say in a folder of no results yet what they come from."""
        write_sealed_json(self.path / self.identity_file, self.identity)

    def check(self) -> None:
        """Refuse a folder of something else, as `of_another` does, and one that does not say of what; see `known`."""
        known, own = self.known(self.path), self.identity
        differing = {name: (known.get(name), own.get(name)) for name in {**known, **own}}
        differing = {name: (one, other) for name, (one, other) in differing.items() if one != other}
        if differing:
            raise self.of_another(differing)

    def open(self) -> None:
        """`make` and `check`, and remove what a kill left half-written there."""
        self.make()
        self.check()
        remove_half_written(self.path)

    @classmethod
    def known(cls, path: Path) -> dict[str, Any]:
        """What the results in a folder come from.

        Raises:
            CheckpointError: that cannot be read.
        """
        try:
            return read_sealed_json(path / cls.identity_file)
        except (OSError, DamagedError) as error:
            raise CheckpointError(
                f"{path / cls.identity_file} cannot be read or is damaged, and nothing else says what is in the "
                f"folder. {cls.advice}"
            ) from error


def told(differing: Differing) -> str:
    """``steps was 32 and is 16, cfg was 3.0 and is 1.0``."""
    return ", ".join(f"{name} was {known} and is {own}" for name, (known, own) in differing.items())


def whole(path: Path, read: Callable[[Path], Found]) -> Found | None:
    """What ``read`` finds in a file; None where there is none or, as a warning says, it is damaged."""
    if not path.exists():
        return None
    try:
        return read(path)
    except (CheckpointError, DamagedError, OSError):
        warnings.warn(f"{path} is damaged and not used; what it held is computed again", stacklevel=3)
        return None

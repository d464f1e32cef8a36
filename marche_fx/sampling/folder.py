"""The folder of a run: shares on disk, each whole or not there, and what they are of.

``manifest.json`` says what all images come from; ``images/`` has them. ``shares/000012.json`` is written last of all
that belongs to share 12, with the digests of its files: a share without it is made again. ``features/`` has the
features of a share's images, where statistics are asked for.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import ArgumentError, CheckpointError
from ..saving.files import DamagedError, read_sealed_json, remove_half_written, replacing, write_sealed_json
from ..saving.folder import Differing, OwnFolder, told
from ..saving.refused import make_folder

MANIFEST_FILE = "manifest.json"
SUMMARY_FILE = "summary.json"
IMAGES, SHARES, FEATURES = "images", "shares", "features"
"""Folders in it."""


@dataclass(frozen=True)
class Record:
    """What is known of a share that is there.

    Attributes:
        first: number of its first image. count: of its images. files: their SHA-256, by name in the folder.
        seconds: that its images took. rank: of the process that made it. run: of that process and those beside it.
    """

    first: int
    count: int
    files: Mapping[str, str]
    seconds: float
    rank: int
    run: str


class Folder(OwnFolder):
    """The folder of the run that its manifest tells of."""

    identity_file = MANIFEST_FILE
    advice = "Choose another folder"

    def of_another(self, differing: Differing) -> ArgumentError:
        return ArgumentError(f"{self.path} holds images of another run: {told(differing)}. Choose another folder")

    def begin(self) -> None:
        """Write the manifest.

        Raises:
            ArgumentError: the folder holds images that are of no run.
        """
        strangers = [name for name in (IMAGES, SHARES, FEATURES) if (self.path / name).exists()]
        if strangers:
            raise ArgumentError(
                f"{self.path} has {' and '.join(strangers)} and no {MANIFEST_FILE} that says of what. Choose another "
                "folder"
            )
        super().begin()

    def make(self) -> None:
        super().make()
        for name in (IMAGES, SHARES, FEATURES):
            make_folder(self.path / name)

    def remove_half_written(self) -> None:
        """Remove what killed processes left, once no other run is at work here."""
        for name in (IMAGES, SHARES, FEATURES):
            remove_half_written(self.path / name)

    def record_file(self, index: int) -> Path:
        return self.path / SHARES / f"{index:06d}.json"

    def has(self, index: int) -> bool:
        """Whether a share is there and whole; a warning names what is damaged, to be made again."""
        if not self.record_file(index).exists():
            return False
        try:
            for name in (record := self.record(index)).files:
                self.content(record, name)
        except CheckpointError as error:
            warnings.warn(str(error), stacklevel=3)
            return False
        return True

    def record(self, index: int) -> Record:
        """What is known of a share.

        Raises:
            CheckpointError: its record is missing or damaged.
        """
        path = self.record_file(index)
        try:
            values = read_sealed_json(path)
        except (OSError, DamagedError) as error:
            raise damaged(path) from error
        return Record(**values)

    def content(self, record: Record, name: str) -> bytes:
        """A file of a share.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        path = self.path / name
        try:
            found = path.read_bytes()
        except OSError as error:
            raise damaged(path) from error
        if hashlib.sha256(found).hexdigest() != record.files[name]:
            raise damaged(path)
        return found

    def images(self, record: Record) -> list[bytes]:
        """The contents of a share's files of images, in order."""
        return [self.content(record, name) for name in record.files if name.startswith(f"{IMAGES}/")]

    def write(
        self,
        index: int,
        numbers: range,
        files: Sequence[tuple[str, bytes]],
        *,
        seconds: float,
        rank: int,
        run: str,
    ) -> None:
        """Write ``files``, names and contents, and then that they are there."""
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in files}
        for name, content in files:
            with replacing(self.path / name) as partial:
                partial.write_bytes(content)
        write_sealed_json(
            self.record_file(index), asdict(Record(numbers.start, len(numbers), digests, seconds, rank, run))
        )


def damaged(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} is missing or damaged; its share of the images is made again by the next run")

"""Results in files: written whole or not at all, damage noticed, and the weights that they belong to."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from .refused import writing

SEAL = b"\nmarche_fx sha256 "
"""What stands behind the content of a sealed file; then its SHA-256. Readers of zip archives look past both."""


MOST_TEXT = 1 << 26
"""Bytes of JSON that are read."""

HALF_WRITTEN = re.compile(r"(?P<name>.+)\.\d+-\w+\.partial")
"""What a file is called while it is written, see `replacing`."""


class DamagedError(Exception):
    """A file is not as it was written."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to, put in its place when done: a kill leaves the old file or the new one.

    Another one for each writer, so that two of them leave the file of one, not a mixture.

    Raises:
        StorageError: the system refuses to write it.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}-{uuid.uuid4().hex}.partial")
    is_ours = True
    with writing(path):
        try:
            try:
                # Made here and now: what somebody put there, as a link to another place, is not written to.
                os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
            except FileExistsError:
                is_ours = False
                raise
            yield partial
            os.replace(partial, path)
        finally:
            if is_ours:
                partial.unlink(missing_ok=True)


def remove_half_written(place: Path) -> None:
    """Remove what processes that were killed left of a file, or of all files in a folder; whoever asks has it alone."""
    folder, names = (place, None) if place.is_dir() else (place.parent, {place.name})
    for partial in folder.glob("*.partial"):
        found = HALF_WRITTEN.fullmatch(partial.name)
        if found and (names is None or found["name"] in names):
            partial.unlink(missing_ok=True)


def seal(path: Path) -> None:
    """Put a digest behind what was written to ``path``."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.write(SEAL + digest)


def write_sealed(path: Path, content: bytes) -> None:
    """Write ``content`` with a digest behind it."""
    with replacing(path) as partial:
        partial.write_bytes(content)
        seal(partial)


def read_sealed(path: Path) -> bytes:
    """What was written to ``path`` before it was sealed.

    Raises:
        DamagedError: it is not what was written, or no sealed file.
    """
    with open_regular(path) as file:
        return unsealed(file.read())


def unsealed(data: bytes) -> bytes:
    """What was sealed; raises as `read_sealed` does."""
    content, _, digest = data.rpartition(SEAL)
    if not content or hashlib.sha256(content).digest() != digest:
        raise DamagedError
    return content


def write_sealed_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write ``tensors`` with a digest behind them."""
    write_sealed(path, save({name: own.detach().cpu().contiguous() for name, own in tensors.items()}))


def read_sealed_tensors(path: Path) -> dict[str, Tensor]:
    """What `write_sealed_tensors` wrote, on the CPU; raises as `read_sealed` does."""
    try:
        found: dict[str, Tensor] = load(read_sealed(path))
    except SafetensorError as error:
        raise DamagedError from error
    return found


def open_regular(path: Path) -> BinaryIO:
    """A file to read, which is one: a pipe would keep its reader waiting, and a device never ends.

    Raises:
        OSError: it cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Any) -> None:
    write_text(path, as_text(values))


def write_sealed_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write ``values`` and a digest of them."""
    write_json(path, with_digest(values))


def read_sealed_json(path: Path) -> dict[str, Any]:
    """What `write_sealed_json` wrote.

    Raises:
        DamagedError: it is not what was written, or was written by something else.
    """
    with open_regular(path) as file:
        text = file.read(MOST_TEXT)
    try:
        values = json.loads(text)
        del values["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError from error
    # Text, not values: so a change that JSON does not see is one too.
    if as_text(with_digest(values)).encode() != text:
        raise DamagedError
    found: dict[str, Any] = values
    return found


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    return {**values, "sha256": hashlib.sha256(as_text(values).encode()).hexdigest()}


def as_text(values: Any) -> str:
    return json.dumps(values, indent=2) + "\n"


def weights_hash(model: nn.Module) -> str:
    """A digest of a model's weights and buffers, see `tensors_hash`."""
    return tensors_hash(model.state_dict())


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """The first 16 digits of the SHA-256 of tensors with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]

"""What the system says of a file that cannot be written, as an error that names the file and says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
MISSING = (errno.ENOENT, errno.ENOTDIR)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Inside, an error of the system is a `StorageError` about ``path``."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(refusal(path, error)) from error


def make_folder(path: Path) -> None:
    """Make a folder, and those that it is in, unless it is there."""
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


def refusal(path: Path, error: OSError) -> str:
    """Why ``path`` cannot be written, and what to do about it."""
    return f"{path} cannot be written: {error.strerror or error}. {advice(path, error)}"


def advice(path: Path, error: OSError) -> str:
    """What to do where the system refuses a file."""
    if error.errno in FULL:
        return "Free some space, or name a place on another disk; what was there before is as it was"
    if error.errno in FORBIDDEN:
        return f"Let this user write to {path.parent}, or name another folder"
    if error.errno in MISSING:
        return f"Make the folder {path.parent}, or name another; it may have been removed meanwhile"
    if error.errno == errno.EISDIR:
        return "It is a folder: name a file in it"
    return "Name another place"

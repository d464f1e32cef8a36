"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SamplingError

LOCK_FILE = "lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process is let in; the system lets the folder go when the process ends, however that is.

    Raises:
        SamplingError: another process is in it.
    """
    with (folder / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SamplingError(
                f"another run samples into {folder} now. Wait for it, or choose another folder; one run uses many "
                "processes by torchrun --nproc-per-node"
            ) from None
        yield

"""Files and folders that one process at a time writes: the others wait, or are told who does."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import ParamSpec, TypeVar

from ..errors import ArgumentError
from .files import remove_half_written

Given = ParamSpec("Given")
Found = TypeVar("Found")

LOCK_FILE = ".lock"

PAUSE = 0.02
"""Seconds between two looks."""

GRACE = 1.0
"""Seconds beyond one's patience in which a lock that was let go meanwhile is asked for again."""

LONGEST = 500
"""Bytes of what a holder says of himself."""

UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems say that have no locks."""


@contextmanager
def held_folder(folder: Path, doing: str) -> Iterator[None]:
    """Have a folder for oneself, which is made; ``doing`` is what others are told.

    Raises:
        ArgumentError: it cannot be written, or another process has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArgumentError(f"the folder {folder} cannot be written: {error}") from error
    with locked(folder / LOCK_FILE, folder, 0, doing):
        yield


@contextmanager
def held_file(path: Path, doing: str) -> Iterator[None]:
    """Have a file for oneself at once; where its folder is not there, whoever writes it says so."""
    with held(path, 0, doing) if path.resolve().parent.is_dir() else nullcontext():
        yield


Hold = Callable[[Path, str], AbstractContextManager[None]]


def alone(doing: str, hold: Hold = held_folder) -> Callable[[Callable[Given, Found]], Callable[Given, Found]]:
    """Decorates a function with an argument ``out``: one process at a time runs it there. None, it is nowhere.

    Args:
        doing: what others are told. hold: has ``out`` for oneself.
    """

    def decorate(function: Callable[Given, Found]) -> Callable[Given, Found]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def wrapped(*args: Given.args, **kwargs: Given.kwargs) -> Found:
            out = signature.bind(*args, **kwargs).arguments.get("out")
            # Of what is no path the function itself says so.
            with hold(Path(out), doing) if isinstance(out, (str, Path)) else nullcontext():
                return function(*args, **kwargs)

        return wrapped

    return decorate


@contextmanager
def held(path: Path, patience: float, doing: str) -> Iterator[None]:
    """Have a file for oneself, after so many seconds at most; raises as `held_folder` does."""
    with locked(path.with_name(f".{path.name}{LOCK_FILE}"), path, patience, doing):
        yield


@contextmanager
def locked(lock: Path, what: Path, patience: float, doing: str) -> Iterator[None]:
    """Hold ``lock``, a file that is there while it is held. What a dead process held is free: the system sees to it.

    What that process left half-written of ``what`` is removed.
    """
    descriptor = None
    try:
        descriptor = acquired(lock, what, patience)
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            holder = f"process {os.getpid()} on {platform.node()}, {doing} since {since}"
            os.write(descriptor, holder.encode()[:LONGEST])
            remove_half_written(what)
        yield
    finally:
        if descriptor is not None:
            # Before it is let go, so that nobody who has it by then loses his.
            lock.unlink(missing_ok=True)
            os.close(descriptor)


def acquired(lock: Path, what: Path, patience: float) -> int | None:
    """A descriptor by which ``lock`` is held; None, after a warning, where there are no locks."""
    try:
        import fcntl
    except ImportError:
        tell_of_none(what, "this system has none")
        return None
    latest = time.monotonic() + patience
    while True:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ArgumentError(f"{what} cannot be written: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_still(lock, descriptor):
                return descriptor
            # Whoever had it has let it go and taken it away meanwhile: the next try may be the first.
            holder, grace = "processes that take turns", GRACE
        except BlockingIOError:
            holder, grace = os.pread(descriptor, LONGEST, 0).decode(errors="replace") or "another process", 0.0
        except OSError as error:
            os.close(descriptor)
            if error.errno not in UNSUPPORTED:
                raise ArgumentError(f"{what} cannot be written: {error}") from error
            tell_of_none(what, str(error))
            return None
        os.close(descriptor)
        if time.monotonic() >= latest + grace:
            raise ArgumentError(f"{what} is in use by {holder}. Wait for it, or choose another place")
        time.sleep(PAUSE)


def is_still(lock: Path, descriptor: int) -> bool:
    """Whether a file is the one that stands there."""
    try:
        return os.path.samestat(os.stat(lock, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def tell_of_none(what: Path, reason: str) -> None:
    warnings.warn(f"{what} cannot be locked: {reason}. Let one process at a time write there", stacklevel=5)

"""Which files this user wrote on this machine: a secret in a folder of his own signs them."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path

SECRET_FILE = "signing.key"

LENGTH = 32
"""Bytes of the secret, and of a signature."""

UNSIGNED = bytes(LENGTH)
"""What stands in place of a signature where there is no secret."""


class NoSecretError(Exception):
    """Why files cannot be signed here."""


def own_folder() -> Path:
    """The user's folder of this package: ``$XDG_CACHE_HOME/marche_fx``, or ``~/.cache/marche_fx``.

    Raises:
        NoSecretError: it is nowhere.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return Path(cache if os.path.isabs(cache) else Path.home() / ".cache") / "marche_fx"
    except RuntimeError as error:
        raise NoSecretError(str(error)) from error


def sign(content: bytes) -> bytes:
    """The signature of what this user writes.

    Raises:
        NoSecretError: there is no folder of his own for a secret.
    """
    return hmac.digest(secret(), content, "sha256")


def is_signed(content: bytes, signature: bytes) -> bool:
    """Whether this user wrote it on this machine; raises as `sign` does."""
    return hmac.compare_digest(sign(content), signature)


def secret() -> bytes:
    """The user's secret, which is made when it is first asked for."""
    folder = own_folder()
    path = folder / SECRET_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        refuse_others_access(os.lstat(folder), folder, stat.S_IWGRP | stat.S_IWOTH)
        if not path.exists():
            write_new(path)
        return read_secret(path)
    except OSError as error:
        raise NoSecretError(f"{path} cannot be used: {error.strerror or error}") from error


def write_new(path: Path) -> None:
    """Write a secret, unless another process does so first: whole or not at all."""
    partial = path.with_name(f"{path.name}.{secrets.token_hex(16)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(LENGTH))
        # Not by `replace`: of two processes the first has its way.
        os.link(partial, path)
    except FileExistsError:
        return
    finally:
        partial.unlink()


def read_secret(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        refuse_others_access(os.fstat(descriptor), path, stat.S_IRWXG | stat.S_IRWXO)
        found = file.read(LENGTH + 1)
    if len(found) != LENGTH:
        raise NoSecretError(f"{path} is damaged; remove it")
    return found


def refuse_others_access(found: os.stat_result, path: Path, access: int) -> None:
    """Raise for what belongs to somebody else, or what others may do ``access`` with."""
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
        raise NoSecretError(f"{path} is not of this user")
    if found.st_mode & access:
        raise NoSecretError(f"others than its owner have access to {path}")

"""What takes long at first, said on a terminal while it lasts: a line that is gone when it is over."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

WIPE = "\r\x1b[K"
"""To the beginning of the line, and clear it."""


@contextmanager
def saying(what: str) -> Iterator[None]:
    """``marche_fx: what ...`` on standard error while the block runs, where that is a terminal; else nothing."""
    # None in a program without a console.
    stream = sys.stderr
    if stream is None or not stream.isatty():
        yield
        return
    print(f"{WIPE}marche_fx: {what} ...", end="", file=stream, flush=True)
    try:
        yield
    finally:
        print(WIPE, end="", file=stream, flush=True)

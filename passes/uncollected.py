"""Work in which Python does not look for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Inside, no garbage is looked for, unless another thread asks for it.

    For what makes many objects that stay, as a trace or the loading of a compiler does: to look through them all again
    and again took a quarter of the time of the one, a third of that of the other.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

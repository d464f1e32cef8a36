"""What becomes of a session whose device has no memory left."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from weakref import WeakMethod

from ..errors import OutOfMemoryError, is_out_of_memory
from .program import Program

Free = WeakMethod[Callable[[], None]]


@contextmanager
def freeing(free: Free | None, called: Callable[[], Sequence[tuple[str, Program]]]) -> Iterator[None]:
    """Where the device has no memory left inside, free a session's caches, and say what they took.

    Args:
        free: frees them. called: names and programs of the session's calls.

    Raises:
        OutOfMemoryError: so it is.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
            raise
        discard = None if free is None else free()
        if discard is not None:
            discard()
        # What failed holds caches, and what was computed of them, for as long as somebody looks at the error.
        traceback.clear_frames(error.__traceback__)
        raise OutOfMemoryError(told(called(), error)) from error


def told(called: Sequence[tuple[str, Program]], error: Exception) -> str:
    """What was needed, and what to do."""
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    programs = dict(called)
    needs = " and ".join(need_of(name, own) for name, own in programs.items()) or "a step that is captured"
    return (
        f"no memory is left for {needs}: {reason} The session's caches are freed, and it may go on, computing every "
        "token anew. Decode fewer samples at once, or halve the caches by transform(..., cache_dtype=torch.bfloat16)"
    )


def need_of(name: str, program: Program) -> str:
    """``forward of 8 samples of 256 tokens, whose caches take 12.5 MiB in each stream of calls``."""
    caches = sum(math.prod(spec.shape) * spec.dtype.itemsize for spec in program.split.caches)
    return (
        f"{name} of {program.samples} samples of {program.tokens} tokens, whose caches take {caches / 2**20:.1f} MiB "
        "in each stream of calls"
    )

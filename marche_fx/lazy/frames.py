"""Which modules run, seen by the frames of their ``forward``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

from torch import nn

from ..marks import holds_transformed


def is_method_of(owner: Any, name: str, frame: FrameType) -> bool:
    """Whether a frame is of the method of this name."""
    method = getattr(owner, name, None)
    return getattr(inspect.unwrap(method), "__code__", None) is frame.f_code if callable(method) else False


def first_argument(frame: FrameType) -> Any:
    """Of the function that a frame is of, which is the object whose method it is, if it is one."""
    names = frame.f_code.co_varnames[: min(frame.f_code.co_argcount, 1)]
    return frame.f_locals.get(names[0]) if names else None


def forwards_running(frame: FrameType | None) -> Iterator[tuple[nn.Module, FrameType]]:
    """Modules whose ``forward`` a frame or one around it is of, and these frames, from the inside out."""
    while frame is not None:
        own = first_argument(frame)
        if isinstance(own, nn.Module) and is_method_of(own, "forward", frame):
            yield own, frame
        frame = frame.f_back


def is_inside_of_a_network() -> bool:
    """Whether a network runs that is none of ours: no layer that a loop calls itself, and not what the loop is in."""
    running = (own for own, _ in forwards_running(sys._getframe(1)))
    return any(next(own.children(), None) is not None and not holds_transformed(own) for own in running)

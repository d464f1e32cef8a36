"""The line of the model at which something happened, or stands."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from ..graph.source import is_library_frame


def first_line_of(method: Callable[..., Any]) -> str:
    """`` (model.py:41)``: where a method is written; empty where that is not known."""
    code = getattr(inspect.unwrap(method), "__code__", None)
    return f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""


def first_line(run: Callable[[], Any], has_happened: Callable[[], bool]) -> str:
    """``model.py:41``: the line that ``run`` executed last before something has happened; empty where it does not."""
    last, found = "", ""

    def follow(frame: FrameType, event: str, _: object) -> Any:
        nonlocal last, found
        if not found and has_happened():
            found = last
        last = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        return follow

    def enter(frame: FrameType, event: str, _: object) -> Any:
        return None if is_library_frame(frame.f_code.co_filename) else follow

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        run()
    finally:
        sys.settrace(before)
    return found

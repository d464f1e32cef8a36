"""The line of the model at which something happened, or stands."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

from ..graph.source import installed_package, is_library_frame


def first_line_of(method: Callable[..., Any]) -> str:
    """`` (model.py:41)``: where a method is written; empty where that is not known."""
    code = getattr(inspect.unwrap(method), "__code__", None)
    return f" ({Path(code.co_filename).name}:{code.co_firstlineno})" if code else ""


def line_being_run() -> str:
    """``model.py:41``: the innermost line that is being run of the model's own code."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_library_frame(frame.f_code.co_filename):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def model_frames(model: nn.Module) -> Callable[[str], bool]:
    """Whether a file is the model's: nobody's package, or one that a module of the model is of."""
    packages = {"", *(type(module).__module__.partition(".")[0] for module in model.modules())}
    return lambda file: not is_library_frame(file) and installed_package(file) in packages


def first_line(run: Callable[[], Any], has_happened: Callable[[], bool], is_of_model: Callable[[str], bool]) -> str:
    """``model.py:41``: the line that ``run`` executed last before something has happened; empty where it does not."""
    last, found = "", ""

    def follow(frame: FrameType, event: str, _: object) -> Any:
        nonlocal last, found
        if not found and has_happened():
            found = last
        last = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        return follow

    def enter(frame: FrameType, event: str, _: object) -> Any:
        return follow if is_of_model(frame.f_code.co_filename) else None

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        run()
    finally:
        sys.settrace(before)
    return found

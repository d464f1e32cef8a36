"""The user's code: where it calls, and warnings that point there."""

from __future__ import annotations

import os.path
import sys
import warnings
from functools import cache
from pathlib import Path
from types import FrameType

import torch

OWN_CODE = (str(Path(__file__).parents[1]), str(Path(torch.__file__).parent))
"""Folders whose frames a warning looks past."""

DISTRIBUTIONS = Path(torch.distributions.__file__).parent

CHECKS = {
    *((str(DISTRIBUTIONS / "constraints.py"), "check"), (str(DISTRIBUTIONS / "distribution.py"), "__init__")),
    (str(DISTRIBUTIONS / "distribution.py"), "_validate_sample"),
}
"""Functions that read every row of what a loop draws from, to see whether it is a distribution, by file and name."""

MODELS = str(Path(__file__).parents[1] / "models")
"""Models that come with the package, whose loops read as anybody's do."""


def warn_once(warned: set[str], message: str, topic: str = "") -> None:
    """Warn where the user's code called, unless the topic, the message when omitted, is among those ``warned`` of."""
    if (topic or message) not in warned:
        warned.add(topic or message)
        level, _ = users_frame()
        warnings.warn(message, stacklevel=level)


def users_frame() -> tuple[int, FrameType]:
    """How many frames up, and which, the user's code called."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and is_own(frame):
        level, frame = level + 1, frame.f_back
    return level, frame


def is_own(frame: FrameType) -> bool:
    return is_own_file(frame.f_code.co_filename)


@cache
def is_own_file(name: str) -> bool:
    return name.startswith(OWN_CODE)


def is_check() -> bool:
    """Whether it is no line of the loop that reads, but a check of what the loop draws from."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_own(frame):
        if (frame.f_code.co_filename, frame.f_code.co_name) in CHECKS:
            return True
        frame = frame.f_back
    return False


def users_line() -> str:
    """``decode.py:41``, where a loop reads: in the user's code, or in a model that comes with the package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and is_own(frame) and not frame.f_code.co_filename.startswith(MODELS):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"

"""Whether `torch.compile` was put around a transformed step, which it would leave alone."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

WRAPPERS = str(Path(torch.__file__).parent / "_dynamo" / "eval_frame.py"), "compile_wrapper"
"""The file and the name of the function that `torch.compile` calls in place of another."""


def is_under_compile() -> bool:
    """Whether a function under `torch.compile` is calling."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        if (frame.f_code.co_filename, frame.f_code.co_name) == WRAPPERS:
            return True
        frame = frame.f_back
    return False

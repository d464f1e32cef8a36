"""The devices that a command may name."""

from __future__ import annotations

import torch

from ..errors import ArgumentError


def device_of(name: str) -> torch.device:
    """The device of this name.

    Raises:
        ArgumentError: it is neither the processor nor a CUDA device that is here.
    """
    if name == "cpu":
        return torch.device("cpu")
    if name.startswith("cuda"):
        if not torch.cuda.is_available():
            raise ArgumentError(f"there is no CUDA device here for --device {name}")
        return torch.device(name)
    raise ArgumentError(f"device must be cpu or cuda, got {name!r}")

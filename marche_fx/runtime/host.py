"""Tensors in the memory of the processor, looked at without PyTorch's operators, each of which costs as much again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

UNKNOWN = {1: torch.uint8, 2: torch.int16}
"""By bytes an element: for floating-point numbers that NumPy does not have, whole numbers of the same bits."""

KNOWN = frozenset({torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128})


def on_host(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor on the processor as an array that may share its memory."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    if (tensor.is_floating_point() or tensor.is_complex()) and tensor.dtype not in KNOWN:
        tensor = tensor.view(UNKNOWN[tensor.itemsize]) if tensor.is_floating_point() else torch.view_as_real(tensor)
    return np.asarray(tensor)


def bytes_of(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The bytes of a tensor on the processor, row by row, as an array that may share its memory."""
    return np.ascontiguousarray(on_host(tensor)).reshape(-1).view(np.uint8)

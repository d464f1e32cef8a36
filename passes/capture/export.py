"""Run `torch.export` on a model's method, and say in the user's terms where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .dropping import KeepsTwoTokens
from .step import Step, plain_mode


def export(
    step: Step, tensors: list[Tensor], dynamic: list[dict[int, Any] | None] | None = None
) -> torch.export.ExportedProgram:
    samples = next((len(tensor) for tensor in tensors if tensor.ndim), 1)
    shapes = None if dynamic is None else {"leaves": dynamic}
    try:
        with plain_mode(), KeepsTwoTokens(samples):
            return torch.export.export(step, (tensors,), dynamic_shapes=shapes, strict=False)
    except Exception as error:
        failure = step.failure(error)
        if failure is error:
            raise
        raise failure from error


COMPOSITES = (
    "scaled_dot_product_attention",
    "linear",
    "layer_norm",
    "rms_norm",
    "gelu",
    "silu",
    "softmax",
    "matmul",
    "einsum",
    "embedding",
)
"""Operators that stay whole: passes recognise them and their kernels are faster than their parts."""


def decompositions() -> dict[Any, Callable]:
    table = torch.export.default_decompositions()
    for operator in list(table):
        name = operator.name().removeprefix("aten::").split(".")[0]
        if name in COMPOSITES:
            del table[operator]
    return table

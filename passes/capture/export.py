"""Run `torch.export` on a model's method, and say in the user's terms where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from ...errors import CaptureError, MarcheError
from .dropping import KeepsTwoTokens
from .step import Step, failing_line, plain_mode


def export(
    step: Step, tensors: list[Tensor], dynamic: list[dict[int, Any] | None] | None = None
) -> torch.export.ExportedProgram:
    samples = next((len(tensor) for tensor in tensors if tensor.ndim), 1)
    shapes = None if dynamic is None else {"leaves": dynamic}
    try:
        with plain_mode(), KeepsTwoTokens(samples):
            return torch.export.export(step, (tensors,), dynamic_shapes=shapes, strict=False)
    except MarcheError:
        raise
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        where = (
            f"torch.export cannot capture {step.name}{failing_line(step, error)}: {type(error).__name__}: {reason}\n"
        )
        if "data-dependent" in reason or isinstance(error, DataDependentOutputException):
            raise BranchError(where + BRANCHES) from error
        raise CaptureError(where + TRACES) from error


class BranchError(CaptureError):
    """The step asks for the value of a tensor."""


BRANCHES = (
    "A graph has one path, and this line asks Python for the value of a tensor that is not computed of the arguments "
    "alone. Choose with torch.where instead of a branch, or move the branch out of the step."
)


TRACES = (
    "A step must be a function of its tensors that torch.export can trace; torch.export.draft_export(...) on the "
    "original lists what stands in the way."
)


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

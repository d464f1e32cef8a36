"""Run `torch.export` on a model's method, and say in the user's terms where it cannot."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ...errors import CaptureError, MarcheError
from ..graph.source import CAPTURED, LIBRARY_FRAMES
from .arguments import check_results, closed, opened
from .dropping import KeepsTwoTokens
from .refusals import refuse_assignments
from .structure import attributes, changed_attributes


class Step(nn.Module):
    """A method of ``model`` on the tensors among its arguments as a module, which is what `torch.export` takes."""

    def __init__(self, model: nn.Module, step: str, leaves: list[Any], spec: pytree.TreeSpec) -> None:
        super().__init__()
        setattr(self, CAPTURED, model)
        self.step = step
        self.plain = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.is_tensor = [isinstance(leaf, Tensor) for leaf in leaves]
        self.spec = spec
        self.training = model.training

    @property
    def name(self) -> str:
        return f"{type(getattr(self, CAPTURED)).__name__}.{self.step}"

    def call(self, leaves: list[Tensor]) -> Any:
        model, tensors = getattr(self, CAPTURED), iter(leaves)
        merged = [next(tensors) if is_tensor else plain for plain, is_tensor in zip(self.plain, self.is_tensor)]
        args, kwargs = closed(pytree.tree_unflatten(merged, self.spec))
        return opened(getattr(model, self.step)(*args, **kwargs))

    def forward(self, leaves: list[Tensor]) -> Any:
        model = getattr(self, CAPTURED)
        before = attributes(model)
        with weights_restored(model):
            results = self.call(leaves)
            refuse_assignments(self.name, model, changed_attributes(before, attributes(model)))
        check_results(self.name, results)
        return results


@contextmanager
def weights_restored(model: nn.Module) -> Iterator[None]:
    """Put back what the step makes of its parameters and buffers; `torch.export` does so for other attributes."""
    tables: list[Any] = [table for module in model.modules() for table in (module._parameters, module._buffers)]
    before = [dict(table) for table in tables]
    try:
        yield
    finally:
        for table, own in zip(tables, before):
            table.clear()
            table.update(own)


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
        raise CaptureError(
            f"torch.export cannot capture {step.name}{failing_line(step, error)}: {type(error).__name__}: {reason}\n"
            + (BRANCHES if "data-dependent" in reason else TRACES)
        ) from error


BRANCHES = (
    "A graph has one path, and this line asks Python for the value of a tensor. Choose with torch.where instead of a "
    "branch, or move the branch out of the step."
)


TRACES = (
    "A step must be a function of its tensors that torch.export can trace; torch.export.draft_export(...) on the "
    "original lists what stands in the way."
)


def failing_line(step: Step, error: Exception) -> str:
    """`` at blocks.0 (model.py:41, `if x.sum() > 0:`)``: the last frame of ``error`` in the model's own code."""
    library = (*LIBRARY_FRAMES, str(Path(torch.__file__).parent))
    paths = {id(module): path for path, module in getattr(step, CAPTURED).named_modules()}
    inside, found = False, ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if frame.f_code is Step.forward.__code__:
            inside = True
        elif inside and not any(part in file for part in library):
            path = paths.get(id(frame.f_locals.get("self")))
            summary = traceback.FrameSummary(file, number, frame.f_code.co_name)
            source = f", `{summary.line}`" if summary.line else ""
            found = (f" at {path}" if path else "") + f" ({Path(file).name}:{number}{source})"
    return found


@contextmanager
def plain_mode() -> Iterator[None]:
    """Neither gradients nor inference mode, which would be recorded in the graph.

    Autocast stays on if it is: its casts become operators, and code that asks for a dtype gets the one it would get.
    """
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # torch.export copies its own tree specifications in a way that it deprecates itself.
        warnings.filterwarnings("ignore", ".*LeafSpec", FutureWarning)
        warnings.filterwarnings("ignore", ".*assigned during export", UserWarning)
        yield


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

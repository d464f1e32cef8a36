"""Steps that drop masked tokens: what export must be told of lengths that depend on values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.overrides import TorchFunctionMode

from ..graph.reach import ancestors

aten = torch.ops.aten


class KeepsTwoTokens(TorchFunctionMode):
    """Promise that every `nonzero`, and every mask ``[B, N]`` that indexes, finds at least two positions a sample.

    Dropping masked tokens has a data-dependent length, and export asks whether it is 0 or 1. With this promise the
    length stays symbolic; the graph checks it when it runs.
    """

    def __init__(self, samples: int) -> None:
        super().__init__()
        self.samples = samples

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.nonzero, torch.nonzero):
            for found in result if isinstance(result, tuple) else (result,):
                torch._check(found.shape[0] >= 2 * self.samples)
        elif func is torch.Tensor.__getitem__ and is_token_mask(args[1]):
            torch._check(result.shape[0] >= 2 * self.samples)
        return result


def is_token_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype is torch.bool and index.ndim == 2


def dropped_token_dimensions(exported: torch.export.ExportedProgram) -> list[dict[int, Any] | None]:
    """For each leaf, its dimension that counts kept tokens, marked dynamic: rows written where `nonzero` says.

    Exported with real arguments such a dimension is static, although it changes from step to step:
    ``index_put(padded [2, 264, 96], nonzero(...) [u0, 2], view(x [2, 40, 96]) [80, 96])``.
    """
    found: set[str] = set()
    for node in exported.graph.nodes:
        if node.target not in (aten.index_put.default, aten.index_put_.default):
            continue
        arguments: tuple[Any, ...] = node.args
        _, indices, values = arguments[:3]
        masks = [index.meta["val"] for index in indices if index is not None]
        if not values.meta["val"].ndim:
            continue
        rows, samples = values.meta["val"].shape[0], node.meta["val"].shape[0]
        # Rows that the step itself dropped and now puts back are counted by a symbol already.
        counted = any(is_token_mask(mask) or isinstance(mask.shape[0], torch.SymInt) for mask in masks)
        if isinstance(rows, torch.SymInt) or not counted:
            continue
        for source in ancestors([values]):
            shape: tuple[Any, ...] = getattr(source.meta.get("val"), "shape", ())
            if source.op == "placeholder" and len(shape) > 1 and shape[0] == samples and shape[0] * shape[1] == rows:
                found.add(source.name)
    names = [argument.name for argument in user_inputs(exported)]
    return [{1: torch.export.Dim.AUTO} if name in found else None for name in names]


def user_inputs(exported: torch.export.ExportedProgram) -> list[Any]:
    return [spec.arg for spec in exported.graph_signature.input_specs if spec.kind == InputKind.USER_INPUT]

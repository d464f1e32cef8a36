"""Whether MAR's loop can be called so: told before a step runs, and not by an operator in the middle of one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..checks import check_count, check_kind, check_not_negative, is_number, shown
from ..errors import ArgumentError

CFG_SCHEDULES = ("linear", "constant")


def check_sampling(
    *,
    bsz: int,
    num_iter: int,
    cfg: float,
    cfg_schedule: str,
    temperature: float,
    labels: Tensor | None,
    classes: int,
    given: Mapping[str, tuple[Tensor | None, tuple[int | None, ...]]],
    generator: torch.Generator | None,
) -> None:
    """Raise unless a loop can decode so.

    Args:
        classes: how many the model knows.
        given: by name tensors that may be omitted, with the sizes that they must have; None for any.

    Raises:
        ArgumentError: names the argument.
    """
    check_count("bsz", bsz, least=1)
    if not isinstance(cfg_schedule, str) or cfg_schedule not in CFG_SCHEDULES:
        raise ArgumentError(f'cfg_schedule must be "linear" or "constant", got {shown(cfg_schedule)}')
    check_count("num_iter", num_iter, least=1)
    if not is_number(cfg) or not 0 <= cfg < math.inf:
        raise ArgumentError(f"cfg must be a finite number that is not negative, got {shown(cfg)}")
    check_not_negative("temperature", temperature)
    if temperature == math.inf:
        raise ArgumentError("temperature must be finite")
    if labels is not None:
        check_labels(labels, bsz, classes)
    for name, (tensor, shape) in given.items():
        if tensor is not None:
            check_tensor(name, tensor, shape, is_floating_point=name == "noise")
    if generator is not None:
        check_kind("generator", generator, torch.Generator)


def check_labels(labels: Any, bsz: int, classes: int) -> None:
    check_tensor("labels", labels, (bsz,), is_floating_point=False)
    # A device that is asked for the row of a class that there is not may answer nothing from then on.
    if bool(((labels < 0) | (labels >= classes)).any()):
        raise ArgumentError(f"labels must lie in 0..{classes - 1}, got {shown(labels.tolist())}")


def check_tensor(name: str, tensor: Any, shape: tuple[int | None, ...], *, is_floating_point: bool) -> None:
    if isinstance(tensor, Tensor):
        is_right = tensor.ndim == len(shape) and all(own in (None, size) for own, size in zip(shape, tensor.shape))
        is_whole = not tensor.is_floating_point() and not tensor.is_complex() and tensor.dtype is not torch.bool
        if is_right and (tensor.is_floating_point() if is_floating_point else is_whole):
            return
    kind = "floating-point numbers" if is_floating_point else "whole numbers"
    sizes = ", ".join("any" if own is None else str(own) for own in shape)
    got = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else shown(tensor)
    raise ArgumentError(f"{name} must be a tensor of {kind} [{sizes}], got {got}")

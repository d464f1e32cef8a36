"""For which calls compiled code is right: what a call must be like for it not to be compiled anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .relations import relation

Settings = tuple[Any, ...]


def settings(device_type: str) -> Settings:
    """What PyTorch was told that compiled code was made for, beside its inputs."""
    return (
        torch.is_autocast_enabled(device_type),
        torch.get_autocast_dtype(device_type),
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
    )


@dataclass(frozen=True)
class Conditions:
    """What calls compiled code is right for. Which inputs are tensors is the same in all calls of a module.

    Attributes:
        fixed: by number the inputs of one size and layout: dtype, device, sizes, strides, offset in memory.
        ragged: those with a dimension that may be of any size: dtype, device, number of dimensions.
        relations: what holds of the sizes, strides and offsets of these, an expression of ``x[0]``, ``x[1]``, ...
        baked: inputs that are no tensors, and part of the code.
        settings: see `settings`. device_type: on which the code runs.
    """

    fixed: dict[int, Any]
    ragged: dict[int, Any]
    relations: str
    baked: dict[int, Any]
    settings: Settings
    device_type: str
    related: Callable[[Sequence[Any]], bool] = field(init=False, repr=False, compare=False)
    kinds: tuple[list[Any], list[Any]] = field(init=False, repr=False, compare=False)

    @classmethod
    def of(cls, inputs: Sequence[Any], ragged: Sequence[int], relations: Sequence[str]) -> Conditions:
        tensors = [number for number, own in enumerate(inputs) if isinstance(own, Tensor)]
        fixed = [number for number in tensors if number not in ragged]
        device_type = inputs[tensors[0]].device.type
        return cls(
            dict(zip(fixed, fixed_kinds([inputs[number] for number in fixed]))),
            dict(zip(ragged, ragged_kinds([inputs[number] for number in ragged]))),
            " and ".join(relations) or "True",
            {number: baked(own) for number, own in enumerate(inputs) if number not in tensors},
            settings(device_type),
            device_type,
        )

    def __post_init__(self) -> None:
        # The expression is the compiler's own, of the symbols that it made for the inputs.
        vars(self).update(related=relation(self.relations), kinds=([*self.fixed.values()], [*self.ragged.values()]))

    def hold_for(self, inputs: Sequence[Any]) -> bool:
        """Whether the code computes for ``inputs`` what the module does that it was made of."""
        fixed, ragged = self.kinds
        return (
            fixed_kinds(map(inputs.__getitem__, self.fixed)) == fixed
            and ragged_kinds(map(inputs.__getitem__, self.ragged)) == ragged
            and all(baked(inputs[number]) == own for number, own in self.baked.items())
            and settings(self.device_type) == self.settings
            and bool(self.related(inputs))
        )


def fixed_kinds(tensors: Iterable[Tensor]) -> list[Any]:
    return [(own.dtype, own.device, own.shape, own.stride(), own.storage_offset()) for own in tensors]


def ragged_kinds(tensors: Iterable[Tensor]) -> list[Any]:
    return [(own.dtype, own.device, own.ndim) for own in tensors]


def baked(value: Any) -> Any:
    # 1, 1.0 and True are equal and yet other constants.
    return type(value), value

"""For which calls compiled code is right: what a call must be like for it not to be compiled anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

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


def kind(value: Any) -> Any:
    """Equal for inputs that compiled code takes for one another; a value that is no tensor is compiled in."""
    if isinstance(value, Tensor):
        return value.dtype, value.device, value.shape, value.stride(), value.storage_offset()
    # 1, 1.0 and True are equal and yet other constants.
    return type(value), value


def ragged_kind(value: Tensor) -> Any:
    """The same for a tensor whose sizes and strides are looked at apart."""
    return value.dtype, value.device, value.ndim


@dataclass(frozen=True)
class Conditions:
    """What calls compiled code is right for.

    Attributes:
        kinds: of each input, see `kind`, or `ragged_kind` for those in ``ragged``.
        ragged: numbers of inputs with a dimension that may be of any size.
        relations: what holds of their sizes and strides, an expression of ``x[0]``, ``x[1]``, ...; all of these
            inputs are in it, and so is every size and stride.
        settings: see `settings`. device_type: on which the code runs.
    """

    kinds: tuple[Any, ...]
    ragged: frozenset[int]
    relations: str
    settings: Settings
    device_type: str
    related: Callable[[Sequence[Any]], bool] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        from torch.fx.experimental.symbolic_shapes import SYMPY_INTERP

        # The expression is the compiler's own, of the symbols that it made for the inputs.
        related = eval(f"lambda x: {self.relations}", dict(SYMPY_INTERP))
        object.__setattr__(self, "related", related)

    def __reduce__(self) -> Any:
        return Conditions, (self.kinds, self.ragged, self.relations, self.settings, self.device_type)

    def hold_for(self, inputs: Sequence[Any]) -> bool:
        """Whether the code computes for ``inputs`` what the module does that it was made of."""
        found = tuple([ragged_kind(own) if n in self.ragged else kind(own) for n, own in enumerate(inputs)])
        return found == self.kinds and settings(self.device_type) == self.settings and bool(self.related(inputs))

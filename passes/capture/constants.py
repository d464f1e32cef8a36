"""Tensors beside weights and arguments whose values a trace may have turned into numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .branches import QUESTIONS
from .leftovers import holders
from .structure import parts
from .surroundings import Surroundings

ASKS: tuple[Callable[..., Any], ...] = (*QUESTIONS, Tensor.numpy, Tensor.__array__)
"""Functions that return values of tensors to Python."""


class Asks(TorchFunctionMode):
    """Notes whether Python asks for the values of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.asked |= func in ASKS
        return func(*args, **(kwargs or {}))


def constants(model: nn.Module, surroundings: Surroundings) -> list[Tensor]:
    """Tensors that a model, and what is around it, holds as plain attributes: a trace knows their values."""
    weights = {id(own) for own in (*model.parameters(), *model.buffers())}
    reached = [part for own in holders([model, *surroundings.values().values()]) for part in parts(own)]
    return [own for own in reached if isinstance(own, Tensor) and id(own) not in weights]

"""Writes into a model's tensors, undone after a call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from .leftovers import holders
from .structure import parts


class WritesUndone(TorchDispatchMode):
    """Notes what the operators inside of the context overwrite of a model's tensors, and puts it back at the end."""

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        reached = [part for holder in holders([model]) for part in parts(holder)]
        self.own = {address(part) for part in reached if isinstance(part, Tensor)} - {0}
        self.overwritten: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        # What a function given to an operator of higher order writes, that operator refuses.
        if not isinstance(func, HigherOrderOperator) and func._schema.is_mutable:
            given = {**dict(zip((own.name for own in func._schema.arguments), args)), **kwargs}
            for own in func._schema.arguments:
                target = given.get(own.name)
                if own.is_write and isinstance(target, Tensor) and address(target) in self.own:
                    self.overwritten.append((target, target.clone()))
        return func(*args, **kwargs)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        with torch.no_grad():
            for target, before in reversed(self.overwritten):
                target.copy_(before)


def address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        # A tensor of another layout, or a subclass that has no memory of its own.
        return 0

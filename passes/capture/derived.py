"""What a step computes of its arguments, as against of its weights alone, and where it leaves some of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from .structure import Attributes, Place


class Derived(TorchDispatchMode):
    """Follows what the operators inside of the context compute of some tensors.

    By the memory that it is in, of which each is held weakly: no address stands for another one meanwhile.
    """

    supports_higher_order_operators = True

    def __init__(self, arguments: Iterable[Tensor]) -> None:
        super().__init__()
        self.memory: dict[int, StorageWeakRef] = {}
        for own in arguments:
            self.add(own)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        if any(map(self.has, pytree.tree_leaves((args, kwargs)))) and not reads_sizes_alone(func):
            for own in pytree.tree_leaves(results):
                self.add(own)
        return results

    def add(self, value: Any) -> None:
        memory = memory_of(value)
        if memory is not None:
            self.memory[memory.cdata] = memory

    def has(self, value: Any) -> bool:
        memory = memory_of(value)
        return memory is not None and memory.cdata in self.memory

    def places(self, found: Attributes) -> frozenset[Place]:
        """Where some of it is."""
        return frozenset(place for place, values in found.items() if any(map(self.has, values)))


def memory_of(value: Any) -> StorageWeakRef | None:
    """Equal for tensors that share memory; None where a tensor does not tell."""
    if not isinstance(value, Tensor):
        return None
    try:
        return StorageWeakRef(value.untyped_storage())
    except (NotImplementedError, RuntimeError):
        # A tensor of another layout, or a subclass that has no memory of its own.
        return None


def reads_sizes_alone(func: Any) -> bool:
    """Whether an operator takes the size and the kind of a tensor for another one, as ``zeros_like``."""
    if isinstance(func, HigherOrderOperator):
        return False
    name = func._schema.name.partition("::")[2]
    return name.endswith("_like") or name.startswith("new_")

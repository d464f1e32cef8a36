"""What stands for CUDA graphs on the processor: operators recorded with their very tensors, and called again.

As on a GPU, recording does nothing: what was written is put back, and what was computed holds garbage until it is
replayed. What the host would read stops a recording. Graphs share one pool: the replay of one leaves garbage in what
those compute that were recorded later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

HOST_READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2")
"""Operators whose result the host needs; an index by a mask does too."""

GARBAGE = 255
"""A byte: a number of such bytes is NaN or -1."""


class ForbiddenError(RuntimeError):
    """What a driver says of work that a stream cannot record."""


class Tape(TorchDispatchMode):
    """Operators in the order in which they were called, with the tensors of their arguments and results."""

    def __init__(self, recorder: Tapes) -> None:
        super().__init__()
        self.recorder = recorder
        self.number = recorder.recorded
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.saved: dict[int, tuple[Any, Any]] = {}
        self.computed: dict[int, Any] = {}
        """Memory that operators made for their results, by address."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.recorder.forbid(func, args)
        written = list(written_by(func, args, kwargs))
        for own in written:
            memory = own.untyped_storage()
            if memory.data_ptr() not in self.computed:
                self.saved.setdefault(memory.data_ptr(), (memory, memory.clone()))
        found = func(*args, **kwargs)
        given = {own.untyped_storage().data_ptr() for own in tensors_in((args, kwargs))}
        for own in tensors_in(found):
            if own.untyped_storage().data_ptr() not in given:
                self.computed[own.untyped_storage().data_ptr()] = own.untyped_storage()
        self.calls.append((func, args, kwargs, found))
        return found

    @property
    def size(self) -> int:
        return sum(own.nbytes() for own in self.computed.values())

    def undo(self) -> None:
        for memory, before in self.saved.values():
            memory.copy_(before)
        self.saved.clear()
        self.spoil()

    def spoil(self) -> None:
        for memory in self.computed.values():
            memory.fill_(GARBAGE)

    def replay(self) -> None:
        self.recorder.replays += 1
        for later in self.recorder.tapes:
            if later.number > self.number:
                later.spoil()
        for func, args, kwargs, found in self.calls:
            given = {own.untyped_storage().data_ptr() for own in tensors_in((args, kwargs))}
            now = func(*args, **kwargs)
            for old, new in zip(tensors_in(found), tensors_in(now), strict=True):
                if old.untyped_storage().data_ptr() not in given:
                    old.copy_(new)


class Tapes:
    """A recorder of operators.

    Args:
        fail: numbers of operators, of all that are recorded, at which recording fails. limit: bytes of all tapes.
        error: what it fails with.
    """

    def __init__(
        self, fail: Callable[[int], bool] = lambda _: False, limit: int = 1 << 30, error: type[Exception] = RuntimeError
    ) -> None:
        self.fail = fail
        self.limit = limit
        self.error = error
        self.operators = 0
        self.recorded = 0
        self.replays = 0
        self.tapes: WeakSet[Tape] = WeakSet()

    def record(self, run: Callable[[], None]) -> Tape:
        self.recorded += 1
        tape = Tape(self)
        try:
            with tape:
                run()
        finally:
            tape.undo()
        self.tapes.add(tape)
        return tape

    def forbid(self, func: Any, args: Any) -> None:
        """Raise for what cannot be recorded."""
        self.operators += 1
        if self.fail(self.operators):
            raise self.error(f"operator {self.operators} fails")
        name = func.overloadpacket._qualified_op_name.removeprefix("aten::")
        is_mask = name in ("index", "index_put", "index_put_") and any(
            own is not None and own.dtype in (torch.bool, torch.uint8) for own in args[1]
        )
        if is_mask or name in HOST_READS:
            raise ForbiddenError("operation not permitted when stream is capturing")


def tensors_in(tree: Any) -> Iterator[Tensor]:
    return (own for own in pytree.tree_leaves(tree) if isinstance(own, Tensor))


def written_by(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """The arguments that an operator writes."""
    schema = func._schema.arguments
    named = {own.name: value for own, value in zip(schema, args)} | kwargs
    for own in schema:
        if own.alias_info is not None and own.alias_info.is_write:
            yield from tensors_in(named.get(own.name))

"""A module compiled at its first call, and anew for calls that what was compiled does not hold for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ...checks import few, tensor_in_words
from ..capture.alone import LOCK, tracing_alone
from .kept import KEPT, Key, Stored, key_of
from .standalone import Code, Ragged, compile_alone

MOST = 8
"""Kinds of calls that a module is compiled for; those of more kinds run operator by operator."""

NAMED = 8
"""Inputs that a warning describes."""

WARNED: set[str] = set()


class Compiled:
    """A module compiled at its first call, for any size of some dimensions of its inputs.

    No two inputs may share memory if the module writes one of them.

    Args:
        ragged: those that differ from call to call. lengths: those that differ from program to program,
            ``(input, dimension)``.
    """

    def __init__(
        self, module: fx.GraphModule, ragged: Sequence[Ragged], lengths: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.module = module
        self.ragged = tuple(ragged)
        self.lengths = tuple(lengths)
        self.known: list[Code] = []
        self.has_compiler = True
        # What the generated code of a graph calls it.
        self.__name__ = self.__qualname__ = "compiled"
        self.__module__ = __name__

    def __call__(self, *inputs: Any) -> Sequence[Tensor]:
        # A mode is to see every operator, as it does of a model under `torch.compile`.
        code = None if torch._C._len_torch_dispatch_stack() else self.known_code(inputs) or self.new_code(inputs)
        if code is not None:
            return code(inputs)
        results: Sequence[Tensor] = self.module(*inputs)
        return results

    def known_code(self, inputs: Sequence[Any]) -> Code | None:
        return next((own for own in self.known if own.conditions.hold_for(inputs)), None)

    def new_code(self, inputs: Sequence[Any]) -> Code | None:
        """Code for calls of a new kind; None, after a warning, where there can be none."""
        if not self.has_compiler:
            return None
        if len(self.known) >= MOST:
            warn_once(
                f"a part of a step was compiled for {MOST} kinds of tensors, and runs operator by operator for more of "
                f"them. Those that it was called with last are {described(inputs)}. Pass numbers that change as "
                "tensors, and tensors of one dtype and memory layout"
            )
            return None
        # Other threads that need the same find it when it is their turn.
        with LOCK:
            found = self.known_code(inputs)
            if found is not None:
                return found
            key = self.key
            found = KEPT.find(key, inputs) or self.compile(key, inputs)
            if found is not None:
                # Another list: a call may be looking through this one.
                self.known = [*self.known, found]
            return found

    @property
    def key(self) -> Key | None:
        return key_of(self.module, self.ragged, self.lengths)

    def stored(self) -> Iterator[Stored]:
        """What it was compiled to, as far as it can be written to a file."""
        key = self.key
        for own in self.known:
            data = None if key is None else own.data()
            if key is not None and data is not None:
                yield Stored(key, own.conditions, data)

    def compile(self, key: str | None, inputs: Sequence[Any]) -> Code | None:
        # The compiler takes a second to load, so it waits until something is compiled.
        from torch._inductor.exc import InductorError, InvalidCxxCompiler, TritonMissing

        try:
            with tracing_alone(), torch._C.DisableTorchFunction():
                found = compile_alone(self.module, inputs, self.ragged, self.lengths)
        except InductorError as error:
            if not isinstance(error.inner_exception, (InvalidCxxCompiler, TritonMissing)):
                raise
            warn_once(f"torch.compile cannot run here, so steps run eagerly: {error.inner_exception}")
            self.has_compiler = False
            return None
        KEPT.count += 1
        return KEPT.add(key, found)


def described(inputs: Sequence[Any]) -> str:
    """``float32 [2, 8, 64], 0.5``: inputs in a few words, without weights' worth of them."""
    return few((tensor_in_words(own) if isinstance(own, Tensor) else repr(own) for own in inputs), NAMED)


def warn_once(message: str) -> None:
    if message not in WARNED:
        WARNED.add(message)
        warnings.warn(message, stacklevel=2)

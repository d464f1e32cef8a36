"""A module handed to `torch.compile`, for any size of some dimensions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx


class Compiled:
    """A module compiled at its first call, for any size of some dimensions of its inputs, ``(input, dimension)``.

    Args:
        ragged: those of tensors that are made in every call. lengths: those of any tensors.
    """

    def __init__(
        self, module: fx.GraphModule, ragged: Sequence[tuple[int, int]], lengths: Sequence[tuple[int, int]] = ()
    ) -> None:
        self.module: Callable[..., Any] = module
        self.ragged = tuple(ragged)
        self.lengths = tuple(lengths)
        self.compiled = torch.compile(module, dynamic=False)
        # What the generated code of a graph calls it.
        self.__name__ = self.__qualname__ = "compiled"
        self.__module__ = __name__

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        inputs = list(given)
        # A mark stays on a tensor, and one that others have too, as an argument, may be of one size for them.
        for number in {number for number, _ in self.lengths}:
            inputs[number] = inputs[number].detach()
        # Marked on every call: the tensors are new each time.
        for number, dim in (*self.ragged, *self.lengths):
            torch._dynamo.mark_dynamic(inputs[number], dim)
        try:
            return self.compiled(*inputs)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            # The compiler takes a second to load, so it waits until something is compiled.
            from torch._inductor.exc import InvalidCxxCompiler, TritonMissing

            if not isinstance(error.inner_exception, (InvalidCxxCompiler, TritonMissing)):
                raise
            # Raised while it compiles, before anything has run.
            warn_of_no_compiler(str(error.inner_exception))
            self.compiled = self.module
            return self.compiled(*inputs)


WARNED: set[str] = set()


def warn_of_no_compiler(reason: str) -> None:
    if reason not in WARNED:
        WARNED.add(reason)
        warnings.warn(f"torch.compile cannot run here, so steps run eagerly: {reason}", stacklevel=2)

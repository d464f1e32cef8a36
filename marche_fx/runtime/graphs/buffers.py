"""Memory that stays where it is: caches and inputs of a step, and the graphs that were recorded on them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from .recorded import RecordedStep
from .rows import ActiveRows

Kind = Hashable
"""What one graph is for: steps of one kind launch the same work on the same memory."""


@dataclass(eq=False)
class KnownStep:
    """Steps of one kind.

    Attributes:
        rows: where their active rows are copied to. args: what the rewritten step is called with.
        fixed: where what is not copied stands. used: number of the last step, of all, that was one of them.
    """

    rows: ActiveRows
    args: tuple[Any, ...]
    fixed: Hashable
    used: int = 0
    recorded: RecordedStep | None = field(default=None, repr=False)

    @property
    def is_recorded(self) -> bool:
        return self.recorded is not None and bool(self.recorded.pieces)

    @property
    def size(self) -> int:
        return 0 if self.recorded is None else self.recorded.size


class Buffers:
    """What one stream of calls computes on, and after it another one's: graphs know memory by where it is.

    Args:
        caches: as a session has them. samples: ``[B, 1]``, their numbers.
    """

    def __init__(self, caches: Sequence[Tensor], samples: Tensor) -> None:
        self.caches = caches
        self.samples = samples
        self.inputs: dict[Kind, Tensor] = {}
        self.copied: dict[Kind, tuple[ref[Tensor], int]] = {}
        """By input what was copied into it last, and how often that had been written."""
        self.steps: dict[Kind, KnownStep] = {}
        """By kind."""

    def hold(self, number: int, value: Tensor) -> Tensor:
        """Input ``number`` where graphs read it."""
        kind = number, value.dtype, tuple(value.shape)
        if kind not in self.inputs:
            self.inputs[kind] = torch.empty_like(value)
        own, last = self.inputs[kind], self.copied.get(kind)
        version = None if value.is_inference() else value._version
        if last is None or last[0]() is not value or last[1] != version:
            own.copy_(value)
            self.copied.pop(kind, None)
            if version is not None:
                self.copied[kind] = ref(value), version
        return own

    def forget_inputs(self) -> None:
        """Copy all of them before the next step."""
        self.copied.clear()


def is_copied(number: int, value: Any, fixed: Collection[int]) -> bool:
    """Whether an input of a step is copied to where graphs read it."""
    return number not in fixed and isinstance(value, Tensor)


def kind_of(values: Sequence[Any], fixed: Collection[int]) -> tuple[Hashable, Hashable]:
    """What of a step's inputs makes it another kind of step: where what is ``fixed`` stands; and forms and numbers."""
    copied = {number for number, own in enumerate(values) if is_copied(number, own, fixed)}
    stay = [own for number, own in enumerate(values) if number not in copied and isinstance(own, Tensor)]
    places = tuple((own.data_ptr(), own.stride()) for own in stay)
    forms = tuple(
        (own.dtype, tuple(own.shape)) if number in copied else (type(own), own)
        for number, own in enumerate(values)
        if number in copied or not isinstance(own, Tensor)
    )
    return places, forms

"""Run the prologue of a session's steps: what does not depend on a changed input once, the rest at every step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, fx

from ..passes.rewrite.stages import Stage
from .host import bytes_of

Values = dict[fx.Node, Any]

COMPARED = 1 << 20
"""Arguments of at most so many elements are compared by value."""


@dataclass(frozen=True)
class LastRead:
    """A tensor that a stage read.

    Attributes:
        version: how often it had been written; None where PyTorch does not count.
        copy: its bytes, where these are compared.
    """

    tensor: Tensor
    version: int | None
    copy: Any

    @classmethod
    def of(cls, tensor: Tensor, *, by_value: bool) -> LastRead:
        version = None if tensor.is_inference() else tensor._version
        is_cheap = by_value and tensor.device.type == "cpu" and tensor.numel() <= COMPARED
        return cls(tensor, version, bytes_of(tensor).copy() if is_cheap else None)

    def is_still(self, tensor: Tensor) -> bool:
        """Whether ``tensor`` has the same values, as far as is known without waiting for a device."""
        if self.copy is not None:
            return tensor.device.type == "cpu" and bool(np.array_equal(bytes_of(tensor), self.copy))
        return tensor is self.tensor and self.version is not None and tensor._version == self.version


class Prologue:
    """The stages of one step in one stream of calls, with the values that they had last.

    A stage runs again unless every tensor that it reads is as it was. So a text context that a loop passes to every
    step has its keys and values computed once. Arguments on the host are compared by value, since a caller may write
    them where PyTorch does not count, through NumPy, ``.data`` or DLPack; larger ones than `COMPARED`, those on other
    devices, and weights must be the same object and not have been written, as far as PyTorch counts.

    Args:
        inputs: the step's arguments among what stages read.
    """

    def __init__(self, stages: Sequence[Stage], inputs: Collection[fx.Node]) -> None:
        self.stages = stages
        self.inputs = {*inputs}
        self.last: dict[fx.Node, LastRead] = {}
        self.values: list[Values] = [{}] * len(stages)

    def run(self, values: Values) -> Values:
        """What the stages compute from the step's arguments and weights ``values``."""
        read = {node for stage in self.stages for node in stage.reads}
        changed = {node for node in read if node not in self.last or not self.last[node].is_still(values[node])}
        computed: Values = {}
        # Until all of it is done, what was computed belongs to no values.
        for node in changed:
            self.last.pop(node, None)
        for number, stage in enumerate(self.stages):
            if not self.values[number] or not changed.isdisjoint(stage.reads):
                self.values[number] = {}
                outputs = stage.part.module(*(computed.get(node, values.get(node)) for node in stage.part.inputs))
                self.values[number] = dict(zip(stage.part.outputs, outputs, strict=True))
            computed |= self.values[number]
        for node in changed:
            self.last[node] = LastRead.of(values[node], by_value=node in self.inputs)
        return computed

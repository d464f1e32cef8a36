"""Run the prologue of a session's steps: what does not depend on a changed input once, the rest at every step."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, fx

from ..passes.rewrite.stages import Stage
from .host import bytes_of

Values = dict[fx.Node, Any]

COMPARED = 1 << 20
"""Arguments of at most so many elements are compared by value."""


@dataclass(frozen=True)
class Read:
    """A tensor that a stage reads.

    Attributes:
        version: how often it has been written; None where PyTorch does not count.
        bytes: its own, where these are compared.
    """

    tensor: Tensor
    version: int | None
    bytes: np.ndarray[Any, Any] | None

    @classmethod
    def of(cls, tensor: Tensor, *, by_value: bool) -> Read:
        version = None if tensor.is_inference() else tensor._version
        is_cheap = by_value and tensor.device.type == "cpu" and tensor.numel() <= COMPARED
        return cls(tensor, version, bytes_of(tensor) if is_cheap else None)

    def has_values_of(self, last: Read) -> bool:
        """Whether it has the values of what was read last, as far as is known without waiting for a device."""
        if last.bytes is not None:
            return self.bytes is not None and bool(np.array_equal(self.bytes, last.bytes))
        return self.tensor is last.tensor and self.version is not None and self.version == last.version

    def kept(self) -> Read:
        """The same, whatever is written into the tensor later."""
        return self if self.bytes is None else replace(self, bytes=self.bytes.copy())


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
        self.last: dict[fx.Node, Read] = {}
        self.values: list[Values] = [{}] * len(stages)

    def run(self, values: Values) -> Values:
        """What the stages compute from the step's arguments and weights ``values``."""
        nodes = {node for stage in self.stages for node in stage.reads}
        read = {node: Read.of(values[node], by_value=node in self.inputs) for node in nodes}
        changed = {node for node in nodes if node not in self.last or not read[node].has_values_of(self.last[node])}
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
            self.last[node] = read[node].kept()
        return computed

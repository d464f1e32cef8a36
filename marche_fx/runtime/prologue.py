"""Run the prologue of a session's steps: what does not depend on a changed input once, the rest at every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from ..passes.rewrite.stages import Stage

Values = dict[fx.Node, Any]


class Prologue:
    """The stages of one step in one session, with the values that they had last.

    A stage runs again unless every tensor that it reads is the same object as before and was not written since. So a
    text context that a loop passes to every step has its keys and values computed once. Tensors made under
    `torch.inference_mode` do not count writes, and what depends on them is computed at every step.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = stages
        self.read: list[list[tuple[Tensor, int]] | None] = [None] * len(stages)
        self.values: list[Values] = [{}] * len(stages)

    def run(self, values: Values) -> Values:
        """What the stages compute from the step's arguments and weights ``values``."""
        computed: Values = {}
        for number, stage in enumerate(self.stages):
            now = versions(stage, values)
            if now is None or not same_tensors(self.read[number], now):
                outputs = stage.part.module(*(computed.get(node, values.get(node)) for node in stage.part.inputs))
                self.values[number] = dict(zip(stage.part.outputs, outputs, strict=True))
                self.read[number] = now
            computed |= self.values[number]
        return computed


def versions(stage: Stage, values: Values) -> list[tuple[Tensor, int]] | None:
    """The tensors that a stage depends on, each with how often it was written; None where that is not known."""
    read = [values[node] for node in stage.reads]
    if any(tensor.is_inference() for tensor in read):
        return None
    return [(tensor, tensor._version) for tensor in read]


def same_tensors(before: list[tuple[Tensor, int]] | None, now: list[tuple[Tensor, int]]) -> bool:
    return before is not None and all(
        old is new and version == current for (old, version), (new, current) in zip(before, now, strict=True)
    )

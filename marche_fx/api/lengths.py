"""How a step is captured for a new length: from a capture that holds for many, if there is one, or by a trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from ..passes.capture.capture import capture
from ..passes.capture.captured import Capture
from ..passes.capture.lengths import (
    AnyLength,
    LengthError,
    capture_any_length,
    changed_dims,
    differs_in_sizes,
    refuse_dropping,
)
from ..passes.trail import counted
from ..runtime.weights import fits_weights


class Lengths:
    """Captures of a step that hold for many lengths.

    Attributes:
        traces: how often the step was traced. instances: captures that were made without a trace.
        reason: why shapes are captured one by one; empty while they need not be.
    """

    def __init__(self) -> None:
        self.found: list[AnyLength] = []
        self.declined: set[Any] = set()
        """Kinds of arguments, and of changes of their sizes, for which there is no such capture."""
        self.traces = 0
        self.instances = 0
        self.reason = ""

    def forget(self) -> None:
        """The model is another one now."""
        self.found, self.declined, self.reason = [], set(), ""

    def keep(self, captures: Sequence[Capture]) -> None:
        """Forget what none of these ``captures`` is an instance of."""
        self.found = [own for own in self.found if any(own.covers(each) for each in captures)]

    @property
    def summary(self) -> str:
        """What was traced and what was not, in words; empty where there is nothing to tell."""
        if not self.instances and not self.reason:
            return ""
        told = f"traced {counted(self.traces, 'time')}, and {counted(self.instances, 'capture')} made without a trace"
        return told + (f"; each shape is captured anew, since {self.reason}" if self.reason else "")

    def capture(
        self,
        model: nn.Module,
        step: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        known: Sequence[Capture],
        tell: Callable[[str], None],
    ) -> Capture:
        """The capture of ``model.step(*args, **kwargs)``.

        Args:
            known: captures of the step so far. tell: told why shapes are captured one by one, from the third on.
        """
        made = self.instance(model, args, kwargs) or self.first_instance(model, args, kwargs, known)
        if made is None:
            # Two shapes, as of a last batch, are no habit.
            if self.reason and len(known) > 1:
                tell(self.reason)
            self.traces += 1
            return capture(model, step, args, kwargs)
        self.instances += 1
        return made

    def instance(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Capture | None:
        """One made of what was captured for many lengths."""
        fitting = (own for own in self.found if fits_weights(own.capture, model))
        return next((made for own in fitting if (made := own.at(model, args, kwargs)) is not None), None)

    def first_instance(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        known: Sequence[Capture],
    ) -> Capture | None:
        """The same where the step is captured for many lengths now: a second one is asked for."""
        nearest = self.nearest(model, args, kwargs, known)
        if nearest is None:
            return None
        try:
            refuse_dropping(nearest)
            self.traces += 1
            found = capture_any_length(model, nearest, args, kwargs)
            made = found.at(model, args, kwargs)
            if made is None:
                raise LengthError("what it keeps of a call for the next is another for another length")
        except LengthError as error:
            self.declined.add(kind_of(nearest, (args, kwargs)))
            self.reason = str(error)
            return None
        self.found.append(found)
        return made

    def nearest(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], known: Sequence[Capture]
    ) -> Capture | None:
        """The traced capture from which a call differs in fewest sizes and in nothing else.

        Not one of the lengths of a capture for many: that did not hold for this call, which goes another way.
        """
        traced = [own for own in known if not own.is_instance and fits_weights(own, model)]
        apart = [own for own in traced if not any(found.covers(own) for found in self.found)]
        alike = [own for own in apart if differs_in_sizes(own, args, kwargs)]
        wanted = [own for own in alike if kind_of(own, (args, kwargs)) not in self.declined]
        return min(wanted, key=lambda own: sum(map(len, changed_dims(own, (args, kwargs)))), default=None)


def kind_of(known: Capture, call: Any) -> Any:
    """Equal for calls of one kind that differ from a captured one in the same sizes."""
    leaves = [
        repr(own.value) if own.node is None else (own.value.dtype, own.value.device, own.value.ndim)
        for own in known.inputs
    ]
    return str(known.in_spec), tuple(leaves), str(changed_dims(known, call))

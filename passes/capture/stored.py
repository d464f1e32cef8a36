"""A capture of another process, and what must be here again for it to hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from .captured import Capture
from .digests import described, digest
from .lengths import AnyLength
from .rehearsal import rehearse_call
from .sizes import Guard
from .structure import Attributes, Place
from .tables import Tables

Digests = dict[Place, str]


@dataclass(frozen=True)
class Premises:
    """What a capture was made under, beside the model, comparable between processes.

    Attributes:
        written: what the step sets in every call and never reads. varying: of this, plain values that are others then.
        around: what it read beside the model. left: the tables that a call left, which the graph holds.
        beside: plain values that other steps had left in the model.
    """

    written: frozenset[Place]
    varying: frozenset[Place]
    around: Digests
    left: Digests
    beside: Digests

    @classmethod
    def of(cls, tables: Tables, found: Attributes, beside: Attributes) -> Premises:
        """Those of a capture with these tables.

        Args:
            found: what there was when it was made. beside: what other steps had left.
        """
        read = tables.surroundings.attributes().keys() - tables.places - tables.written
        around = {place: values for place, values in found.items() if place in read}
        return cls(tables.written, tables.varying, digests(around), digests(tables.after), digests(beside))

    def differences(self, now: Premises) -> list[Place]:
        """Where there is something else now. Further tables, as for other lengths, make no difference."""
        around = [place for place in {**self.around, **now.around} if self.around.get(place) != now.around.get(place)]
        around += [place for place in {**self.beside, **now.beside} if self.beside.get(place) != now.beside.get(place)]
        return around + [place for place, own in self.left.items() if now.left.get(place) != own]


@dataclass(frozen=True)
class Stored:
    """A capture as it was read from a file, without tables.

    Attributes:
        guards: for which sizes it holds, where it is one for many lengths; None where it is not.
    """

    capture: Capture
    premises: Premises
    guards: tuple[Guard, ...] | None = None

    def holds_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether it is for arguments of this kind."""
        if self.guards is None:
            return self.capture.accepts(args, kwargs)
        return AnyLength.of(self.capture, self.guards).sizes_for(args, kwargs) is not None

    def rehearsed(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tables:
        """What a real call on copies makes in this process, and where it reads."""
        rehearsal = rehearse_call(model, self.capture.step, args, kwargs)
        return rehearsal.tables(model, self.premises.written, self.premises.varying)


def digests(values: Attributes) -> Digests:
    return {place: digest(*map(described, own)) for place, own in values.items()}

"""A captured denoiser of another process."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import nn

from ..passes.capture.any_rows import AnyRows
from ..passes.capture.stored import Premises, Stored
from ..runtime.weights import fits_weights
from .calls import Call
from .program import HeadProgram
from .roles import Roles


@dataclass(frozen=True, eq=False)
class StoredHead:
    """A capture as it was read from a file, without what it reads beside the model.

    Attributes:
        kind: of the calls that it serves. roles: of their tensors.
    """

    kind: Any
    roles: Roles
    rows: AnyRows
    premises: Premises

    def restored(self, net: nn.Module, call: Call) -> tuple[AnyRows | None, str]:
        """The capture with what is read here; or None and what is another here than where it was made."""
        stored = Stored(self.rows.capture, self.premises)
        if not fits_weights(stored.capture, net):
            return None, "weights are of other kinds"
        tables = stored.rehearsed(net, call.args, call.kwargs)
        changed = self.premises.differences(Premises.of(tables, tables.surroundings.attributes(), {}))
        if changed:
            where, name = changed[0]
            return None, f"{name!r} of {where or 'the model'} is another than where it was made"
        return dataclasses.replace(self.rows, capture=dataclasses.replace(stored.capture, tables=tables)), ""


def premises_of(program: HeadProgram) -> Premises:
    """What a captured denoiser holds under."""
    return Premises.of(program.captured.capture.tables, program.premises, {})

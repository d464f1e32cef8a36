"""Tensors that are neither weights nor arguments: those that the model holds by name, the others beside the JSON."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..capture.structure import Place, attributes
from .refused import UnusableError
from .values import checked


class Constants:
    """Those of one model and of what is written of it.

    Args:
        tensors: what was written beside the JSON, where it is read. without: attributes that a step sets for itself,
            which no model has when it is read.

    Attributes:
        held: plain tensors of the model, by the path of a module, the name of an attribute and a number in it.
    """

    def __init__(
        self, model: nn.Module, tensors: Mapping[str, Tensor] | None = None, without: Collection[Place] = ()
    ) -> None:
        self.tensors = dict(tensors or {})
        self.held = {
            (path, name, number): leaf
            for (path, name), leaves in attributes(model, lambda weight: None).items()
            for number, leaf in enumerate(leaves)
            if (path, name) not in without and isinstance(leaf, Tensor) and not isinstance(leaf, nn.Parameter)
        }

    def write(self, own: Tensor) -> dict[str, Any]:
        """Where a tensor is found, as JSON. What a model holds belongs to it, and is not in the file."""
        place = next((place for place, held in self.held.items() if are_same(own, held)), None)
        if place is not None:
            return {"model": list(place)}
        name = next((name for name, known in self.tensors.items() if are_same(own, known)), f"c{len(self.tensors)}")
        self.tensors.setdefault(name, own.detach())
        return {"tensor": name, "device": str(own.device)}

    def read(self, written: Any) -> Tensor:
        """The tensor that `write` found, as one of its own.

        Raises:
            UnusableError: there is none.
        """
        if "model" in checked(written, dict):
            path, name, number = written["model"]
            found = self.held.get((path, name, number))
        else:
            found = self.tensors.get(written["tensor"])
            found = None if found is None else found.to(written["device"])
        if found is None:
            raise UnusableError("it names a tensor that there is not")
        return found.detach().clone()


def are_same(own: Tensor, other: Tensor) -> bool:
    """Whether they are equal in values, and in all that tells tensors apart."""
    if (own.shape, own.dtype, own.device, own.layout) != (other.shape, other.dtype, other.device, other.layout):
        return False
    # NaN is the same as itself here; and -0.0 is not 0.0.
    return own is other or torch.equal(as_bytes(own), as_bytes(other))


def as_bytes(own: Tensor) -> Tensor:
    return own.detach().contiguous().reshape(-1).view(torch.uint8)

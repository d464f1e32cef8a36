"""Products with weights that are packed as oneDNN reads them for few rows: as much memory again, for time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.utils.weak import WeakTensorKeyDictionary

from .products import LIBRARY, is_plain, linear, onednn, shape_of_linear

LIBRARY.define("packed_linear(Tensor x, Tensor weight, Tensor? bias=None) -> Tensor")

ROWS = 32
"""For about so many rows weights are packed; they serve any number."""

SMALL = 2**19
"""For so few multiplications `aten.linear` takes no longer."""


@dataclass(frozen=True)
class Packed:
    """A weight as it was packed.

    Attributes:
        storage: the memory that it was read from. version: how often that had been written.
    """

    weight: Tensor
    storage: StorageWeakRef
    version: int

    @classmethod
    def of(cls, weight: Tensor) -> Packed:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)
        return cls(packed, StorageWeakRef(weight.untyped_storage()), weight._version)

    def is_still(self, weight: Tensor) -> bool:
        """Whether ``weight`` has the same values, as far as PyTorch counts what is written.

        Storages are told by what they are: another one may come to lie at the address of one that was freed.
        """
        return self.version == weight._version and self.storage.cdata == weight.untyped_storage()._cdata


class PackedWeights:
    """The packed copies of this process, each as long as its weight lives; models that share a weight share it."""

    def __init__(self) -> None:
        self.known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.count = 0
        """How often a weight was packed."""

    def of(self, weight: Tensor) -> Tensor:
        """``weight`` packed, anew where it was written or replaced since."""
        found: Packed | None = self.known.get(weight)
        if found is None or not found.is_still(weight):
            found = self.known[weight] = Packed.of(weight)
            self.count += 1
        return found.weight

    def bytes_of(self, weights: Iterable[Tensor]) -> int:
        """What the packed copies of these take, of which some may have none."""
        return sum(own.numel() * own.element_size() for own in weights if own in self.known)


PACKED = PackedWeights()


def packed_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x [.., D] @ weight.T [D, E] + bias [E]``: ``[.., E]``."""
    # Asked again, for a model may have been moved or cast since its step was compiled.
    if is_plain(x) and can_be_packed(weight) and x.numel() * len(weight) >= SMALL:
        return onednn(x, PACKED.of(weight), bias, "none", [], "")
    return linear(x, weight, bias)


def can_be_packed(weight: Tensor) -> bool:
    """Whether oneDNN packs it, and PyTorch counts what is written into it."""
    return is_plain(weight) and not weight.is_inference()


LIBRARY.impl("packed_linear", packed_linear, "CompositeExplicitAutograd")
LIBRARY.impl("packed_linear", shape_of_linear, "Meta")
LIBRARY.impl("packed_linear", F.linear, "AutocastCPU")

"""What ``gather`` along rows reads of a view: rows by their positions, one for each element of an index."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .geometry import Geometry
from .picks import numbered

aten = torch.ops.aten


@dataclass(frozen=True)
class Gather:
    """``gather(view, dim, index)`` along a dimension of rows, as ``take_along_dim`` calls it too."""

    dim: int
    index: Tensor

    names_rows = False
    """An order of all rows may be meant as the whole."""

    def of(self, value: Tensor) -> Tensor:
        found: Tensor = aten.gather.default(value, self.dim, self.index)
        return found

    def is_of_rows(self, geometry: Geometry) -> bool:
        """Whether all channels of a row are read of the same one."""
        return all(self.index.shape[dim] == 1 or not self.index.stride(dim) for dim in self.rest(geometry))

    def rest(self, geometry: Geometry) -> list[int]:
        """Dimensions that are not of rows."""
        return [dim for dim in range(geometry.like.ndim) if dim not in geometry.frame.dims]

    def rows(self, geometry: Geometry, device: torch.device) -> Tensor:
        """Of each element that is read the number of its row; where all of a row are of one, one for them."""
        shape, index = list(geometry.like.shape), self.index
        # What PyTorch has to say of the index, it says now.
        aten.gather.default(geometry.like, self.dim, index.to("meta"))
        if self.is_of_rows(geometry):
            for dim in self.rest(geometry):
                shape[dim], index = 1, index[(slice(None),) * dim + (slice(0, 1),)]
        return aten.gather.default(numbered(shape, geometry.rows, device), self.dim, index)

    def channels(self, geometry: Geometry, device: torch.device) -> Tensor:
        """Of each element that is read the number of its channel."""
        return self.of(numbered(geometry.like.shape, geometry.channels, device))

    def put_together(self, geometry: Geometry, numbers: Tensor, rows: Tensor) -> Tensor:
        """The elements of rows ``[R, C]``, which are those of ``numbers`` in their order."""
        rest = self.rest(geometry)
        channels = geometry.channels_of(rows, rest)
        for place, dim in enumerate(rest):
            channels = channels.narrow(1 + place, 0, self.index.shape[dim])
        kept = [size for dim, size in enumerate(numbers.shape) if dim not in rest]
        found = channels.reshape(*kept, *channels.shape[1:])
        return found.movedim(tuple(range(len(kept), found.ndim)), tuple(rest)).contiguous()

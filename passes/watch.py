"""Which inputs of the region tell that a token changed since it was last computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import fx

from .axes import TokenAxes
from .reach import descendants
from .region import Region
from .rules import shape_of
from .split import Split


@dataclass(frozen=True)
class Watched:
    """A value that is compared with the one its rows were last computed with.

    Attributes:
        batch_dim: its dimension of samples; None where all samples share it.
        token_dim: its token axis; None for a value that every token of a sample reads, such as a timestep.
    """

    node: fx.Node
    batch_dim: int | None
    token_dim: int | None


def find_watched(split: Split, region: Region, axes: TokenAxes, inputs: Iterable[fx.Node]) -> tuple[Watched, ...]:
    """Every value that the region reads and a step may change.

    A value that tokens meet along two axes, or that only keys carry, is a mask: it says who reads whom and changes no
    row by itself. Everything else changes the rows that read it.
    """
    dynamic = descendants(inputs)
    samples = {axes.class_of[entry, 0] for entry in region.entries}
    found = []
    for node in split.incremental.inputs:
        dims = axes.dims.get(node, ())
        if node not in dynamic or len(dims) > 1 or (dims and node not in split.gathered):
            continue
        batch = next((dim for dim in range(len(shape_of(node))) if axes.class_of[node, dim] in samples), None)
        found.append(Watched(node, batch, dims[0] if dims else None))
    return tuple(found)

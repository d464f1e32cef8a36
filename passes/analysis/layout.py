"""Where samples and tokens stand in a value."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from torch import fx

from ..graph.operands import shape_of
from .axes import TokenAxes
from .dimensions import Axis


@dataclass(frozen=True)
class Layout:
    """A value in which samples and tokens have dimensions of their own.

    Attributes:
        shape: of the value after joined dimensions were cut: ``[B * H, N, d]`` is ``[B, H, N, d]``.
        batch_dim, token_dim: of samples and tokens in that shape.
        joined: how many of its dimensions each dimension of the value is; 0 stands for samples that the value has not.
    """

    shape: tuple[int, ...]
    batch_dim: int
    token_dim: int
    joined: tuple[int, ...]

    @property
    def factors(self) -> tuple[tuple[int, ...], ...]:
        """For each of ``joined`` the sizes of its dimensions; samples that the value has not are one of size 1."""
        ends = [*accumulate(max(count, 1) for count in self.joined)]
        return tuple(self.shape[start:end] for start, end in zip([0, *ends], ends))

    @property
    def is_plain(self) -> bool:
        """Whether the value has this shape itself."""
        return all(count == 1 for count in self.joined)


def find_layout(node: fx.Node, row_dim: int, axes: TokenAxes, samples: Axis, count: int) -> Layout | None:
    """The layout of a value whose rows are tokens along ``row_dim``; None where it has no dimension of samples.

    One sample needs none: ``count`` is how many there are.
    """
    shape: list[int] = []
    joined: list[int] = []
    batch_dim = token_dim = None
    for dim, size in enumerate(shape_of(node)):
        wanted = (samples, *axes.token_axes) if dim == row_dim else (samples,)
        parts = axes.axes.parts(node, dim, wanted)
        if not any(axis in wanted for axis, _ in parts):
            parts = [(None, size)]
        for axis, part in parts:
            if axis == samples and batch_dim is None:
                batch_dim = len(shape)
            elif dim == row_dim and axis in axes.token_axes:
                token_dim = len(shape)
            shape.append(part)
        joined.append(len(parts))
    if token_dim is None:
        return None
    if batch_dim is None and count == 1:
        return Layout((1, *shape), 0, token_dim + 1, (0, *joined))
    return None if batch_dim is None else Layout(tuple(shape), batch_dim, token_dim, tuple(joined))

"""Which inputs of the region tell that a token changed since it was last computed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import fx

from ..analysis.axes import TokenAxes
from ..analysis.region import Region
from ..analysis.rows import streams_of
from ..graph.operands import shape_of
from ..graph.reach import descendants
from .parts import Split


@dataclass(frozen=True)
class Watched:
    """A value that is compared with the one its rows were last computed with.

    Attributes:
        batch_dim: its dimension of samples; None where all samples share it.
        token_dim: its token axis; None for a value that every token of a sample reads, such as a timestep.
        shape: of the value with samples and tokens in dimensions of their own, which the dimensions above are in; None
            where they are the value's.
        start: position of its first token among those of all streams.
        taken: a part of the value, by dimension, first position and length; None for all of it.
    """

    node: fx.Node
    batch_dim: int | None
    token_dim: int | None
    shape: tuple[int, ...] | None = None
    start: int = 0
    taken: tuple[int, int, int] | None = None


def find_watched(split: Split, region: Region, axes: TokenAxes, inputs: Iterable[fx.Node]) -> tuple[Watched, ...]:
    """Every value that the region reads and a step may change.

    A value that tokens meet along two axes, or that only keys carry, is a mask: it says who reads whom and changes no
    row by itself. Everything else changes the rows that read it. Keys that `cat` joined to those of tokens, such as a
    learned one for nobody, are watched apart from them, and those of tokens token by token.
    """
    dynamic = descendants(inputs)
    found = []
    for node in split.incremental.inputs:
        dims = axes.dims.get(node, ())
        if node in dynamic and len(dims) <= 1 and not (dims and node not in split.gathered):
            found += watched_parts(node, region, axes) or [watched(node, dims[0] if dims else None, region, axes)]
    return tuple(found)


def watched_parts(node: fx.Node, region: Region, axes: TokenAxes) -> list[Watched]:
    """A value along which tokens were joined to something else, part by part; empty for any other."""
    for dim in range(len(shape_of(node))):
        parts = axes.joined_parts(node, dim)
        if parts:
            whole = watched(node, None, region, axes)
            if whole.shape is not None:
                return []
            return [
                replace(
                    whole,
                    token_dim=dim if axis in axes.token_axes else None,
                    start=axes.start_of(axis) if axis in axes.token_axes else 0,
                    taken=(dim, start, length),
                )
                for axis, start, length in parts
            ]
    return []


def watched(node: fx.Node, dim: int | None, region: Region, axes: TokenAxes) -> Watched:
    """How rows of ``node``, which has tokens along ``dim``, are told apart."""
    shape: list[int] = []
    batch_dim = token_dim = None
    wanted = (region.samples_axis, *axes.token_axes)
    for own in range(len(shape_of(node))):
        for axis, size in axes.axes.parts(node, own, wanted):
            if axis == region.samples_axis and batch_dim is None:
                batch_dim = len(shape)
            elif own == dim and axis in axes.token_axes:
                token_dim = len(shape)
            shape.append(size)
    start = 0 if dim is None else axes.start(streams_of(node, dim, axes))
    is_cut = len(shape) > len(shape_of(node))
    return Watched(node, batch_dim, token_dim, tuple(shape) if is_cut else None, start)

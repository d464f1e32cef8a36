"""What `split` makes of a step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, fx

from ..analysis.heads import Head
from ..analysis.layout import Layout
from .cut import Part
from .memory import empty_in_order


@dataclass(frozen=True)
class CacheSpec:
    """One tensor that a session owns: the rows of ``value`` for all N tokens.

    Attributes:
        role: ``"attention"`` for an operand that attention mixes, ``"operand"`` for one that another operator mixes,
            ``"result"`` for what the epilogue reads.
        layout: its shape, in which samples and tokens have dimensions of their own.
        rounded_to: what its rows are rounded to, where that is less precise than they are.
        order: its dimensions in the order in which they are in memory; None for their own.
    """

    name: str
    value: fx.Node
    role: str
    layout: Layout
    rounded_to: torch.dtype | None = None
    order: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.layout.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.rounded_to or self.value.meta["val"].dtype

    def allocate(self, device: torch.device) -> Tensor:
        """A cache of zeros."""
        return empty_in_order(torch.empty(0, device=device), self.shape, self.order, self.dtype).zero_()

    def in_order(self, rows: Tensor) -> Tensor:
        """``rows``, a cache of maybe other sizes, as a cache lies in memory."""
        if self.order is None:
            return rows.contiguous()
        return empty_in_order(rows, rows.shape, self.order, rows.dtype).copy_(rows)


@dataclass(frozen=True)
class HeadPart:
    """A wide result that is computed of a narrow one's cache where it is read.

    Attributes:
        part: called with ``(samples, positions [B, R], *inputs)``, the cache among these, returns rows of the result.
        spec: of the cache that a session makes of the result when it needs one.
    """

    head: Head
    part: Part
    spec: CacheSpec


@dataclass(frozen=True)
class Split:
    """A step in three parts, and the head of a result that is not cached.

    Attributes:
        prologue: from the step's inputs to what the region reads; all tokens, every step.
        incremental: called with ``(samples, *active, *read, *rows, *queried, *inputs, *caches)``, where each stream of
            tokens has its active positions; writes the caches and returns the values of its hooks.
        epilogue: from caches and prologue values to the step's results; None for that of ``head``.
        gathered: values of the prologue of which the region reads active rows.
        copies: node of the captured graph to its counterpart in the incremental graph.
        active: for each stream the placeholder of its active positions, ``[B, A]``. read: that of the numbers of those
            active tokens whose results are computed, ``[B, R]``. rows, queried: those of numbers of active tokens,
            ``[B, Q]``, which are among ``read`` and hold all that are queried, and of which of them are, bool
            ``[B, Q]``.
        read_only: values of which only the rows of ``read`` are computed.
        unobservable: where signals were wanted, by path the attention sites that none can observe, and why.
    """

    prologue: Part
    incremental: Part
    epilogue: Part
    caches: tuple[CacheSpec, ...]
    gathered: tuple[fx.Node, ...]
    copies: dict[fx.Node, fx.Node] = field(repr=False)
    active: tuple[fx.Node, ...]
    read: tuple[fx.Node, ...]
    rows: tuple[fx.Node, ...]
    queried: tuple[fx.Node, ...]
    read_only: frozenset[fx.Node]
    head: HeadPart | None = None
    unobservable: dict[str, str] = field(default_factory=dict)

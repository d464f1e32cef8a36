"""Choose a step's active tokens: equally many in every sample, so that no shape is ragged."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .refresh import Refresh

BUCKET = 8
"""Active counts are multiples of this, so that few shapes occur."""

MOST = 0.8
"""When more than this share of the tokens must run, all of them do."""


@dataclass(frozen=True)
class Active:
    """The tokens of one stream in one step.

    Attributes:
        positions: ``[B, A]`` int64, ascending in each sample.
        complete: every token that the step does not drop is among them.
        visible: how many tokens of a sample the step does not drop, at most.
    """

    positions: Tensor
    complete: bool
    visible: int

    @property
    def count(self) -> int:
        return int(self.positions.shape[1])


@dataclass(frozen=True)
class ActiveStreams:
    """The tokens of one step, stream by stream. Positions among those of all streams are in the order of the streams.

    Attributes:
        positions: ``[B, A]`` int64, among the tokens of all streams.
    """

    streams: tuple[Active, ...]
    positions: Tensor

    @property
    def complete(self) -> bool:
        return all(own.complete for own in self.streams)

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(own.count for own in self.streams)

    @property
    def visible(self) -> int:
        return sum(own.visible for own in self.streams)


def choose_streams(must: Tensor, visible: Tensor | None, refresh: Refresh, lengths: Sequence[int]) -> ActiveStreams:
    """`choose_active` for each stream; each gets its share of the refresh set.

    Args:
        must: bool ``[B, N]``, over the tokens of all streams. lengths: how many tokens each stream has.
    """
    if len(lengths) == 1:
        active = choose_active(must, visible, refresh)
        return ActiveStreams((active,), active.positions)
    streams, positions = [], []
    total = sum(lengths)
    for start, length in zip(itertools.accumulate(lengths, initial=0), lengths):
        own = slice(start, start + length)
        priority = None if refresh.priority is None else refresh.priority[:, own]
        share = Refresh(round(refresh.count * length / total), priority)
        streams.append(choose_active(must[:, own], None if visible is None else visible[:, own], share))
        positions.append(streams[-1].positions + start)
    return ActiveStreams(tuple(streams), torch.cat(positions, 1))


def choose_active(must: Tensor, visible: Tensor | None, refresh: Refresh) -> Active:
    """Every token of ``must``, then those of the highest priority, equally many in every sample.

    Waits once for the device, and not at all where all tokens run and none is dropped.

    Args:
        must: bool ``[B, N]``, changed and queried tokens.
        visible: bool ``[B, N]``, the tokens that the step does not drop; the others are only chosen where a sample has
            too few of them.
    """
    tokens = must.shape[1]
    if refresh.count >= tokens:
        return all_tokens(must, visible, tokens if visible is None else int(visible.sum(1).max()))
    score = torch.zeros(must.shape, device=must.device) if refresh.priority is None else refresh.priority.float()
    # The refresh set is chosen on the whole token axis, so that every step method of a session chooses the same one;
    # a step that drops tokens then computes the visible ones of it.
    if refresh.count > 0:
        chosen = score.masked_fill(must, float("-inf")).topk(refresh.count, 1).indices
        must = must.scatter(1, chosen, True)
    counts = [must.sum(1).max()]
    if visible is not None:
        must = must & visible
        score = score.masked_fill(~visible, float("-inf"))
        counts = [must.sum(1).max(), visible.sum(1).max()]
    count, limit = (*torch.stack(counts).tolist(), tokens)[:2]
    count = min(-(-max(count, 1) // BUCKET) * BUCKET, limit)
    if count > MOST * limit:
        return all_tokens(must, visible, limit)
    positions = score.masked_fill(must, float("inf")).topk(count, 1).indices.sort(1).values
    return Active(positions, complete=False, visible=limit)


def all_tokens(like: Tensor, visible: Tensor | None, count: int) -> Active:
    """Every visible token; samples with fewer than ``count`` fill up with invisible ones."""
    if visible is None:
        positions = torch.arange(count, device=like.device).expand(len(like), count).contiguous()
    else:
        # A stable sort keeps positions ascending among the visible and among the others.
        first = (~visible).to(torch.uint8).sort(dim=1, stable=True).indices[:, :count]
        positions = first.sort(1).values
    return Active(positions, complete=True, visible=count)

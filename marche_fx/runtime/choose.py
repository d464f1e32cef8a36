"""Choose a step's active tokens: equally many in every sample, so that no shape is ragged."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import PolicyError
from ..refresh import Refresh

BUCKET = 8
"""Active counts are multiples of this, so that few shapes occur."""

MOST = 0.8
"""When more than this share of the tokens must run, all of them do."""

LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class Active:
    """The tokens of one stream in one step.

    Attributes:
        positions: ``[B, A]`` int64, ascending in each sample.
        complete: every token that the step does not drop is among them.
        visible: how many tokens of a sample the step does not drop, at most.
        queried: so many of them are enough to hold every queried token of a sample; all of them where no sample has
            any.
    """

    positions: Tensor
    complete: bool
    visible: int
    queried: int

    @property
    def count(self) -> int:
        return int(self.positions.shape[1])


@dataclass(frozen=True)
class ActiveStreams:
    """The tokens of one step, stream by stream. Positions among those of all streams are in the order of the streams.

    Attributes:
        positions: ``[B, A]`` int64, among the tokens of all streams.
        measured: the numbers that were brought to the host with the counts; empty where none were needed there.
        only_queried: whether results of other tokens may stay as they are.
        waited: whether the host waited for the device to know how many there are.
    """

    streams: tuple[Active, ...]
    positions: Tensor
    measured: tuple[float, ...] = ()
    only_queried: bool = False
    waited: bool = False

    @property
    def complete(self) -> bool:
        return all(own.complete for own in self.streams)

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(own.count for own in self.streams)

    @property
    def skips_unread(self) -> bool:
        """Whether results of some active tokens are not computed. Where all are active, all results are exact."""
        return self.only_queried and not self.complete

    @property
    def read(self) -> tuple[int, ...]:
        """How many active tokens of each stream have their results computed."""
        return tuple(own.queried if self.skips_unread else own.count for own in self.streams)

    @property
    def visible(self) -> int:
        return sum(own.visible for own in self.streams)


def choose_streams(
    must: Tensor,
    visible: Tensor | None,
    refresh: Refresh,
    lengths: Sequence[int],
    measured: Sequence[Tensor] = (),
    queried: Tensor | None = None,
    *,
    only_queried: bool = False,
) -> ActiveStreams:
    """Every token of ``must``, then those of the highest priority, equally many in every sample; stream by stream.

    Waits once for the device, and not at all where all tokens run, none is dropped, and ``queried`` is None.

    Args:
        must: bool ``[B, N]``, changed and queried tokens, over the tokens of all streams.
        visible: bool ``[B, N]``, the tokens that the step does not drop; the others are only chosen where a sample has
            too few of them.
        lengths: how many tokens each stream has; each gets its share of the refresh set.
        measured: numbers on the device to bring to the host along with the counts.
        queried: bool ``[B, N]``, those of ``must`` that must be told from others: their attention will be observed, or
            results are only computed for them; None where neither is so.
        only_queried: whether results of other tokens may stay as they are.

    Raises:
        PolicyError: a policy's priority holds NaN.
    """
    total = sum(lengths)
    wanted = []
    for start, length in zip(itertools.accumulate(lengths, initial=0), lengths):
        own = slice(start, start + length)
        count = min(round(refresh.count * length / total), length)
        seen, priority, asked = (part(tokens, own, total) for tokens in (visible, refresh.priority, queried))
        bounded = Refresh(count, priority, queried=refresh.queried if len(lengths) == 1 else None)
        wanted.append(Wanted.of(part(must, own, total), seen, bounded, asked))
    ranked = () if all(own.everything for own in wanted) else refresh.by_policy
    counted = [mask for own in wanted for mask in own.counted]
    if not counted:
        measured, ranked = (), ()
    counts, numbers = brought_to_host([*counted, *(priority.isnan() for _, priority in ranked)], measured)
    for (name, _), is_nan in zip(ranked, counts[len(counted) :], strict=True):
        if is_nan:
            raise PolicyError(f"{name} gave a priority that holds NaN, which has no rank")
    rest = iter(counts)
    streams = tuple(own.take([next(rest) for _ in own.counted]) for own in wanted)
    positions = [own.positions + start if start else own.positions for own, start in zip(streams, starts(lengths))]
    joined = positions[0] if len(positions) == 1 else torch.cat(positions, 1)
    return ActiveStreams(streams, joined, numbers, only_queried, waited=bool(counted))


def part(tokens: Any, own: slice, total: int) -> Any:
    """Of ``[B, N]`` what a stream has; None of None."""
    return tokens if tokens is None or own.stop - own.start == total else tokens[:, own]


def starts(lengths: Sequence[int]) -> Iterator[int]:
    """Where each stream begins among the tokens of all."""
    return itertools.accumulate(lengths[:-1], initial=0)


def brought_to_host(masks: Sequence[Tensor], measured: Sequence[Tensor]) -> tuple[list[int], tuple[float, ...]]:
    """How many tokens of a sample each of ``masks``, bool ``[B, N]``, has at most, and numbers, in one transfer."""
    if not masks and not measured:
        return [], ()
    by_length = sorted(range(len(masks)), key=lambda number: masks[number].shape[1])
    groups = [[*own] for _, own in itertools.groupby(by_length, key=lambda number: masks[number].shape[1])]
    found = [torch.stack([masks[number] for number in group]).sum(2).amax(1) for group in groups]
    if measured:
        # As float64, in which counts are exact.
        found = [own.double() for own in (*found, torch.stack([own.float() for own in measured]))]
    host = (found[0] if len(found) == 1 else torch.cat(found)).tolist()
    counts = dict(zip(itertools.chain(*groups), map(int, host)))
    return [counts[number] for number in range(len(masks))], tuple(host[len(masks) :])


@dataclass(frozen=True)
class Wanted:
    """What a stream wants computed, before the host knows how many tokens that is.

    Attributes:
        must: bool ``[B, N]``, tokens that run in any case; those that the step drops are not among them.
        refresh: how many others, and by what they are ranked.
        queried: bool ``[B, N]``, those to be told from others.
        counted: bool ``[B, N]`` each, of which the host must know the counts: the tokens that are queried, that run,
            that are visible.
    """

    must: Tensor
    refresh: Refresh
    visible: Tensor | None
    queried: Tensor | None

    @classmethod
    def of(cls, must: Tensor, visible: Tensor | None, refresh: Refresh, queried: Tensor | None) -> Wanted:
        if refresh.queried is not None and refresh.priority is not None and 0 < refresh.count < must.shape[1]:
            # Who left others out for these was told of them in this way; of equal priorities another rank has others.
            must, refresh = must | highest(refresh.priority, ~must, refresh.count), Refresh(0, refresh.priority)
        if visible is not None:
            must = must & visible
            queried = None if queried is None else queried & visible
        return cls(must, refresh, visible, queried)

    @property
    def everything(self) -> bool:
        return self.refresh.count >= self.must.shape[1]

    @property
    def counted(self) -> list[Tensor]:
        found = [self.queried, None if self.everything else self.must, self.visible]
        return [own for own in found if own is not None]

    def take(self, counts: Sequence[int]) -> Active:
        limit = self.must.shape[1] if self.visible is None else counts[-1]
        # Where no sample has queried tokens, all count.
        queried, *others = (counts[0] or self.must.shape[1], *counts[1:]) if self.queried is not None else (0, *counts)
        # The budget counts the whole token axis: a step that drops tokens spends all of it on visible ones.
        count = limit if self.everything else min(in_buckets(others[0] + self.refresh.count), limit)
        if count > MOST * limit:
            positions, complete = all_tokens(self.must, self.visible, limit), True
        else:
            positions, complete = self.ranked().topk(count, 1).indices.sort(1).values, False
        return Active(positions, complete, limit, min(in_buckets(queried), positions.shape[1]))

    def ranked(self) -> Tensor:
        """``[B, N]`` float32, by which tokens are chosen: those that run in any case first, those dropped last."""
        if self.refresh.priority is None:
            score = torch.zeros(self.must.shape, device=self.must.device, dtype=torch.float32)
        else:
            # An infinite priority must not stand in for a token that runs in any case.
            score = self.refresh.priority.float().clamp(-LARGEST, LARGEST)
        if self.visible is not None:
            score = torch.where(self.visible, score, -math.inf)
        return score.masked_fill(self.must, math.inf)


def highest(score: Tensor, among: Tensor, count: int) -> Tensor:
    """The tokens with the highest ``score`` ``[B, N]`` of those ``among``, so many of each sample, bool ``[B, N]``.

    Where a sample has fewer, others stand in.
    """
    ranked = score.float().clamp(-LARGEST, LARGEST).masked_fill(~among, float("-inf"))
    return torch.zeros_like(among).scatter(1, ranked.topk(count, 1).indices, True)


def in_buckets(count: int) -> int:
    return -(-max(count, 1) // BUCKET) * BUCKET


def are_few(tokens: int) -> bool:
    """Whether so few tokens of a sample all run in every step, whichever must."""
    return in_buckets(1) > MOST * tokens


def all_tokens(like: Tensor, visible: Tensor | None, count: int) -> Tensor:
    """Positions of every visible token; samples with fewer than ``count`` fill up with invisible ones."""
    if visible is None:
        return torch.arange(count, device=like.device).expand(len(like), count).contiguous()
    # A stable sort keeps positions ascending among the visible and among the others.
    return (~visible).to(torch.uint8).sort(dim=1, stable=True).indices[:, :count].sort(1).values

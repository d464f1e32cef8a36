"""Find the tokens whose inputs moved since they were last computed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..ops import row_drift
from ..passes.rewrite.watch import Watched
from .lengths import Kept


class LastInputs:
    """The region inputs that each token of one session was last computed with.

    Values with a token axis are kept as rows ``[B, N, F]``, those that a whole sample reads as ``[B, F]``.
    """

    def __init__(self, watched: Sequence[Watched], samples: int, tokens: int) -> None:
        self.watched = watched
        self.shape = (samples, tokens)
        self.last: list[Tensor] = []
        self.moved: list[Tensor] = []
        """For each value, in the last comparison, which rows moved, or which samples where a whole sample reads it."""
        self.computed: Tensor | None = None
        """bool ``[B, N]``, tokens computed since the values that whole samples read last changed."""

    def changed(self, now: Sequence[Tensor], tolerance: float, allowed: Sequence[float | None] | None = None) -> Tensor:
        """Tokens that must be computed for their inputs to be honoured: bool ``[B, N]``.

        A row of floating-point numbers changed when it moved by more than ``tolerance`` times its norm, any other when
        it differs at all.

        Args:
            allowed: for each value how far it may move instead, also where it is no floating-point number; None for
                those of which nobody said anything.
        """
        if self.computed is None:
            return torch.ones(self.shape, dtype=torch.bool, device=now[0].device)
        changed = ~self.computed
        self.moved = []
        limits = [None] * len(now) if allowed is None else allowed
        for own, before, after, limit in zip(self.watched, self.last, self.in_rows(now), limits, strict=True):
            moved = has_moved(before, after, tolerance) if limit is None else is_beyond(before, after, limit)
            self.moved.append(moved)
            changed = changed | moved[:, None] if after.ndim == 2 else self.with_tokens(changed, own, moved)
        return changed

    def with_tokens(self, changed: Tensor, watched: Watched, moved: Tensor) -> Tensor:
        """``changed [B, N]`` and the tokens of a value that ``moved``, ``[B, N]`` or those that it has."""
        if moved.shape[1] == self.shape[1]:
            return changed | moved
        tokens = self.tokens_of(watched, moved)
        changed[:, tokens] |= moved
        return changed

    def drift(self, now: Sequence[Tensor]) -> Tensor:
        """How far each token's inputs moved since it was last computed, the most of them, over their norm: ``[B, N]``.

        Those that are no floating-point numbers do not count.
        """
        found = torch.zeros(self.shape, device=now[0].device, dtype=torch.float32)
        if self.computed is None:
            return found
        for own, before, after in zip(self.watched, self.last, self.in_rows(now), strict=True):
            if after.ndim == 2 and after.is_floating_point():
                found = torch.maximum(found, row_drift(after, before)[:, None])
            elif after.is_floating_point():
                tokens = self.tokens_of(own, after)
                found[:, tokens] = torch.maximum(found[:, tokens], row_drift(after, before))
        return found

    def remember(self, now: Sequence[Tensor], samples: Tensor, active: Tensor, *, complete: bool) -> None:
        """The tokens ``active [B, A]`` were computed with ``now``; ``complete`` says that no visible one is left."""
        with torch.inference_mode(False):
            if self.computed is None:
                self.last = [rows.clone() for rows in self.in_rows(now)]
                self.computed = torch.zeros(self.shape, dtype=torch.bool, device=active.device)
            elif complete:
                self.computed.zero_()
            # A number that is written by an index is sent to the device first, which waits for it.
            self.computed.scatter_(1, active, True)
            for own, before, after in zip(self.watched, self.last, self.in_rows(now), strict=True):
                if after.ndim == 2:
                    if complete:
                        before.copy_(after)
                elif after.shape[1] == self.shape[1]:
                    before[samples, active] = after[samples, active]
                else:
                    tokens = self.tokens_of(own, after)
                    is_active = torch.zeros_like(self.computed).scatter(1, active, True)[:, tokens]
                    before.copy_(torch.where(is_active[..., None], after, before))

    def keep(self, samples: Tensor) -> None:
        """Go on with these ``samples [B']`` alone."""
        self.shape = (len(samples), self.shape[1])
        self.last, self.moved = [own[samples] for own in self.last], []
        self.computed = None if self.computed is None else self.computed[samples]

    def forget(self, tokens: Tensor) -> None:
        """Take ``tokens``, bool ``[B, N]`` or what broadcasts to it, for never computed."""
        if self.computed is not None:
            self.computed &= ~tokens.to(self.computed.device)

    def at_length(self, kept: Kept, watched: Sequence[Watched], order: Sequence[int]) -> LastInputs:
        """The same for calls of another length: new tokens were never computed.

        Args:
            watched: its values. order: the number of each among those of this length.
        """
        found = LastInputs(watched, self.shape[0], sum(kept.after))
        if self.computed is not None:
            found.computed = kept.rows(self.computed, fill=False)
            for own, rows in ((self.watched[number], self.last[number]) for number in order):
                streams = kept.streams_from(own.start, rows.shape[1])
                found.last.append(rows.clone() if rows.ndim == 2 else kept.rows(rows, 1, streams))
        return found

    def tokens_of(self, watched: Watched, rows: Tensor) -> slice:
        """Where the tokens of a value ``[B, N, F]`` are among those of all streams."""
        return slice(watched.start, watched.start + rows.shape[1])

    def in_rows(self, values: Sequence[Tensor]) -> Iterator[Tensor]:
        """``[B, N, F]`` or ``[B, F]`` each; values that all samples share are repeated without a copy."""
        for own, value in zip(self.watched, values, strict=True):
            leading = [dim for dim in (own.batch_dim, own.token_dim) if dim is not None]
            value = value if own.taken is None else value.narrow(*own.taken)
            value = value if own.shape is None else value.reshape(own.shape)
            rows = value if leading == [*range(len(leading))] else value.movedim(leading, list(range(len(leading))))
            rows = rows if rows.ndim == len(leading) + 1 else rows.reshape(*rows.shape[: len(leading)], -1)
            yield rows if own.batch_dim is not None else rows.expand(self.shape[0], *rows.shape)


def has_moved(before: Tensor, after: Tensor, tolerance: float) -> Tensor:
    """Whether each row along the last dimension changed; a NaN counts as a change."""
    if tolerance == 0 or not after.is_floating_point():
        return (before != after).any(-1)
    return is_beyond(before, after, tolerance)


def is_beyond(before: Tensor, after: Tensor, tolerance: float) -> Tensor:
    """Whether each row along the last dimension moved by more than ``tolerance`` times its norm."""
    if before.dtype is not torch.float32 or after.dtype is not torch.float32:
        before, after = before.float(), after.float()
    distance = torch.linalg.vector_norm(after - before, dim=-1)
    norm = torch.linalg.vector_norm(before, dim=-1)
    # Any distance is allowed, from a row of zeros too: of infinity times nothing there is no product.
    return ~(distance <= (norm.new_full((), math.inf) if tolerance == math.inf else tolerance * norm))

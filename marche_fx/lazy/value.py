"""A result that is computed when it is read, together with what the loop wrote into it before and after."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .rows import RowNumbers
from .views import View, shares_memory
from .writes import Write

Read = Callable[[Tensor | None], Tensor]
"""Given the tokens whose rows are read, bool ``[B, N]``, or None for all, the output's value."""

MOST = 0.8
"""A view of more than this share of a sample's rows is read as the whole is."""


class LateValue:
    """What late tensors of one result share.

    Reading rows may compute the step anew, for more rows, which gives another tensor. Writes are repeated on it, so
    that none is lost, and rows that were written past this record, through a view that the loop holds, stay.

    Args:
        like: a tensor without values of the result's shape and dtype.
        numbers: of the tokens that its elements are computed of; None where they cannot be told.
        read: computes it.
    """

    def __init__(self, like: Tensor, numbers: RowNumbers | None, read: Read) -> None:
        self.like = like
        self.numbers = numbers
        self.read = read
        self.writes: list[Write] = []
        self.computed: Tensor | None = None
        """What was read last, as the step gave it."""
        self.held: Tensor | None = None
        """The value, with all writes: the same tensor for as long as the loop may hold views of it."""
        self.version: int | None = None
        """How often it had been written when this record last wrote it."""
        self.shared: Tensor | None = None
        """bool ``[B, N]``, tokens into whose rows the loop may write past this record; None where into none."""
        self.shares_all = False
        self.is_uncounted = False
        """Whether it may write where PyTorch does not count, as through NumPy."""
        self.was_written_outside = False

    def get(self, rows: Tensor | None) -> Tensor:
        """The value, with these rows computed in the step that it is a result of; all that may be stale where None."""
        computed = self.read(rows)
        if self.held is None:
            self.held = self.written(computed)
        else:
            self.look_for_writes()
            if computed is not self.computed:
                self.take_in(self.written(computed))
        self.computed, self.version = computed, version_of(self.held)
        return self.held

    def written(self, computed: Tensor) -> Tensor:
        """A value of the step with everything that was written."""
        if not self.writes and has_strides_of(computed, self.like):
            return computed
        value = torch.empty_strided(self.like.shape, self.like.stride(), dtype=computed.dtype, device=computed.device)
        value.copy_(computed)
        for write in self.writes:
            write.on(value)
        return value

    def take_in(self, value: Tensor) -> None:
        """The step was computed again, for more rows."""
        assert self.held is not None
        if not self.is_shared:
            self.held = value
            return
        if self.shares_all and self.was_written_outside:
            return
        with torch.inference_mode(self.held.is_inference()):
            if self.shared is None or self.numbers is None:
                self.held.copy_(value)
            else:
                # Those were computed before; the loop may have written them where nobody counts.
                self.held.copy_(torch.where(self.numbers.elements(self.shared.to(value.device)), self.held, value))

    @property
    def is_shared(self) -> bool:
        return self.shares_all or self.shared is not None

    def look_for_writes(self) -> None:
        """Find out whether the loop wrote into views of the value; where that is not counted, whether it could."""
        assert self.held is not None
        now = version_of(self.held)
        is_unknown = self.is_uncounted or now is None
        self.was_written_outside |= self.is_shared if is_unknown else now != self.version

    def note_sharing(self, found: Any, rows: Tensor | None) -> None:
        """Look for the value's memory in what the loop gets, which is of these rows, or of all where None."""
        assert self.held is not None
        leaves = [leaf for leaf in pytree.tree_leaves(found) if isinstance(leaf, Tensor) and has_memory(leaf)]
        if any(shares_memory(leaf, self.held) for leaf in leaves):
            self.share(rows)

    def share(self, rows: Tensor | None) -> None:
        if rows is None:
            self.shares_all = True
        else:
            self.shared = rows.clone() if self.shared is None else self.shared | rows.to(self.shared.device)

    def write(self, write: Write) -> None:
        """Take note of a write, and do it where there is a value."""
        self.writes.append(write)
        if self.held is not None:
            self.look_for_writes()
            write.on(self.held)
            self.version = version_of(self.held)

    def rows_in(self, views: Sequence[View]) -> Tensor | None:
        """The rows to compute where a view is used as a whole; None for what the whole is."""
        if self.numbers is None or self.numbers.share(views) > MOST:
            return None
        return self.numbers.all_of(views)


def has_strides_of(tensor: Tensor, like: Tensor) -> bool:
    """Whether both stand in memory alike, so that views of one are views of the other."""
    places = zip(tensor.shape, tensor.stride(), like.stride())
    return all(size == 1 or own == other for size, own, other in places)


def has_memory(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not isinstance(tensor, torch._subclasses.FakeTensor)


def version_of(tensor: Tensor) -> int | None:
    """How often a tensor was written; None where PyTorch does not count."""
    return None if tensor.is_inference() else tensor._version

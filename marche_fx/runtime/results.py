"""What a call has of its results, once it was computed; of a wide one the rows that were read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ..passes.capture.arguments import closed
from .program import Program, Values
from .records import SessionLog
from .state import StepState
from .wide import WideResult


class CallResults:
    """The results of one call. They may be the caches until another call writes these."""

    def __init__(self, state: StepState, values: Values, log: SessionLog, stream: int) -> None:
        self.state = state
        self.values = values
        self.log = log
        self.stream = stream
        self.call = state.next_call()
        self.leaves: list[Any] | None = None
        """None before the call was computed."""
        self.age: Tensor | None = None
        """``[B, N]``, how many calls before this one each row was computed, once another call writes the caches."""
        self.computed_rows: Tensor | None = None
        self.record = 0
        """The number of the call's last record."""

    @property
    def program(self) -> Program:
        return self.state.program

    @property
    def computed(self) -> Tensor:
        """bool ``[B, N]``, the tokens whose results this call computed, once it did."""
        assert self.computed_rows is not None
        return self.computed_rows

    @property
    def is_current(self) -> bool:
        """Whether the caches are still as this call left them."""
        return self.call == self.state.calls

    @property
    def wide(self) -> WideResult | None:
        """The result that is computed where it is read, unless all rows of it are there."""
        leaf = None if self.leaves is None or self.program.wide is None else self.leaves[self.program.wide]
        return leaf if isinstance(leaf, WideResult) else None

    @property
    def largest(self) -> int:
        """How many elements the largest result has."""
        found = [leaf.meta["val"] for leaf in self.program.plan.results if isinstance(leaf, fx.Node)]
        return max((leaf.numel() for leaf in found if isinstance(leaf, Tensor)), default=0)

    def take(self, record: int, computed: Tensor, *, is_named: bool, spares: bool) -> None:
        """Have the results of what was just computed, those of tokens ``computed``, bool ``[B, N]``.

        Of a wide result the rows that a read names are computed now; all of them where the session keeps them, as it
        does from when one is read that was not computed in the same call.

        Args:
            record: the number of what was taken down of it. is_named: whether a read names tokens. spares: whether
                others that were read were left as they were.
        """
        before, state = self.wide, self.state
        self.record = record
        self.computed_rows = computed if self.computed_rows is None else self.computed_rows | computed
        self.leaves = state.results(self.values)
        wide = self.wide
        if wide is None or self.program.wide is None:
            return
        if before is not None:
            # Of the same call, from before more of it was read.
            self.leaves[self.program.wide] = wide = before
            wide.forget(computed)
        if state.wide is not None:
            wide.update(state.wide, state.read)
            self.leaves[self.program.wide] = state.wide
            self.count_head(state.read.shape[1])
        elif state.reads_all or spares:
            self.widen(wide)
        elif is_named:
            wide.add(state.asked)
            self.count_head(state.asked.shape[1])

    def are_there(self, queried: Tensor | None) -> bool:
        """Whether this call computed all rows of the wide result that are read; the one wait of a second read."""
        wide = self.wide
        return wide is not None and queried is not None and not bool((queried & ~(self.computed & wide.there)).any())

    def have(self, queried: Tensor | None) -> None:
        """Compute the rows of the wide result that are read and are not there; all of them where None."""
        wide = self.wide
        if wide is None:
            return
        with torch.no_grad(), self.program.plan.dense.autocast.restored():
            if queried is not None:
                self.count_head(wide.ensure(queried))
            else:
                self.widen(wide)

    def widen(self, wide: WideResult) -> None:
        """Have all rows of the wide result; the session keeps them from now on if it is still as this call left it."""
        assert self.leaves is not None
        assert self.program.wide is not None
        self.leaves[self.program.wide] = whole = wide.whole()
        self.count_head(self.program.tokens)
        if self.is_current:
            self.state.wide = whole
            self.log.wide.add((self.stream, self.program))

    def count_head(self, rows: int) -> None:
        """So many rows of each sample were computed by the head."""
        own = self.log.records[self.record]
        self.log.records[self.record] = replace(own, results=(own.results or 0) + rows)

    def tree(self) -> Any:
        """The results as the step returns them."""
        assert self.leaves is not None
        whole = [leaf.whole() if isinstance(leaf, WideResult) else leaf for leaf in self.leaves]
        return closed(pytree.tree_unflatten(whole, self.program.plan.dense.out_spec))

    def keep(self) -> None:
        """Have them for oneself: the caches that they may be are about to be written."""
        if self.leaves is not None:
            # In place: a read that is under way holds them.
            self.leaves[:] = [leaf.clone() if self.state.is_cache(leaf) else leaf for leaf in self.leaves]
            if self.wide is not None:
                self.wide.keep()

    def ages(self) -> Tensor:
        """How many calls before this one each row was computed, ``[B, N]``; no dimension where none ever was."""
        return self.state.age(self.call) if self.age is None else self.age

    def note_age(self) -> None:
        """Take down how old they are, before another call computes some anew."""
        self.age = self.state.age(self.call)

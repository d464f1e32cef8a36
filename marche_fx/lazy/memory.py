"""The memory that views of a late result share: what it holds now, and the tensor that a loop got of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import ref

import torch
from torch import Tensor

from .demand import Demand, Rows, Source
from .expressions import Expression, Given, Result
from .gathers import Gather
from .geometry import Frame, Geometry, sent
from .modes import put_back
from .picks import Pick

FEW = 0.5
"""Of a smaller share of the rows a copy is made at once."""

SMALL = 0.25
"""What is computed of a result and has less than this share of its elements is computed before the result is kept."""


class Memory:
    """What late tensors share that are views of one another.

    Attributes:
        expression: what it holds, with all that was written. records: whether operators on it are recorded.
        whole: the view of all of it.
        held: its values in a tensor, once the loop got hold of that memory, as through NumPy: there it may write where
            nobody sees it, so rows stay as they are. filled: bool ``[R]``, the rows that ``held`` has.
    """

    def __init__(self, expression: Expression, *, records: bool) -> None:
        self.expression = expression
        self.records = records
        self.whole = Geometry.whole(expression.like, expression.frame)
        self.held: Tensor | None = None
        self.filled: Tensor | None = None
        self.last: Tensor | None = None
        """The whole as it was last read, in which rows may be older than in what is computed for the next read."""
        self.agrees = False
        """Whether rows of ``last`` that are True are no older than that."""
        self.when_read: list[Callable[[], None]] = []
        """What is called when the loop reads it as a whole, which was computed before it did."""

    @property
    def device(self) -> torch.device:
        return self.expression.device

    @property
    def frame(self) -> Frame:
        return self.expression.frame

    def shows_all(self, geometry: Geometry) -> bool:
        """Whether a view has every row."""
        return not self.frame.dims or geometry.frame.count == self.frame.count

    def value(self, geometry: Geometry) -> Tensor:
        """What a view shows, to be read and not written."""
        if not geometry.like.numel():
            return torch.empty_like(geometry.like, device=self.device)
        if self.held is not None:
            return self.handed_out(geometry)
        if self.shows_all(geometry):
            if isinstance(self.expression, Result):
                # Which may be a cache, written in the next step.
                return geometry.of(evaluated(self.expression, None))
            if self.last is not None:
                return geometry.of(self.last)
            demand = Demand()
            value = evaluated(self.expression, None, demand=demand)
            if demand.wholes:
                self.last = value
            else:
                # No row of it is older than what a later read would give.
                self.hold(value)
            return geometry.of(value)
        channels = geometry.channels_of(self.rows_in(geometry))
        found = torch.empty(geometry.like.shape, dtype=channels.dtype, device=channels.device)
        front = geometry.frame.rows_first(found)
        front.copy_(channels.reshape(front.shape))
        return found

    def mask(self, geometry: Geometry) -> Tensor:
        """What a view of a mask shows, to say which rows of other values are read.

        These will be computed, and some may then be none that the mask would name: of rows that it names, the mask is
        computed anew. Those that it would name only now may stay as they were, as in any whole.
        """
        value = self.value(geometry)
        if self.last is None or self.frame.channels != 1 or self.agrees:
            return value
        rows = self.frame.rows_first(self.last).reshape(-1).nonzero()[:, 0]
        if len(rows):
            self.last = self.last.clone()
            self.frame.put(self.last, rows, evaluated(self.expression, Rows(rows, are_chosen=True)))
        self.agrees = True
        return geometry.of(self.last)

    def rows_in(self, geometry: Geometry) -> Tensor:
        """The rows that a view shows, ``[R, C]`` with all their channels."""
        return evaluated(self.expression, Rows(geometry.numbers()), self.beside(geometry))

    def beside(self, geometry: Geometry) -> Rows | None:
        """Where a view shows one sample, the same rows of all.

        They are computed with it: a loop that goes from sample to sample would otherwise run a step for each.
        """
        if len(self.frame.dims) < 2 or self.frame.strides[0] in geometry.row_strides:
            return None
        samples, size = self.frame.sizes[0], self.frame.strides[0]
        starts = torch.arange(samples)[:, None] * size
        return Rows((starts + geometry.numbers() % size).reshape(-1))

    def picked(self, geometry: Geometry, pick: Pick | Gather) -> Tensor:
        """``view[index]``, of rows that are computed for it."""
        numbers = pick.rows(geometry, self.device)
        if self.held is not None:
            self.fill(numbers.reshape(-1).unique())
            return pick.of(geometry.of(self.held))
        if pick.is_of_rows(geometry):
            rows = evaluated(self.expression, Rows(numbers.reshape(-1), are_chosen=pick.names_rows))
            return pick.put_together(geometry, numbers, rows)
        alone, places = numbers.unique(return_inverse=True)
        rows = evaluated(self.expression, Rows(alone, are_chosen=pick.names_rows))
        return rows[places, pick.channels(geometry, self.device)]

    def handed_out(self, geometry: Geometry) -> Tensor:
        """What a view shows, in memory that the loop may write; the same for every view."""
        if not geometry.like.numel():
            return torch.empty_like(geometry.like, device=self.device)
        if self.shows_all(geometry):
            self.fill(None)
            while self.when_read:
                self.when_read.pop()()
        else:
            self.fill(sent(geometry.numbers(), self.device), self.beside(geometry))
        assert self.held is not None
        return geometry.of(self.held)

    def fill(self, rows: Tensor | None, beside: Rows | None = None) -> None:
        """Let ``held`` have these rows ``[R]``, or all; ``beside`` as in `evaluated`."""
        if self.held is None:
            like = self.expression.like
            # Not as an inference tensor: the loop may write into it outside of inference mode.
            with torch.inference_mode(False):
                self.held = torch.empty_strided(like.shape, like.stride(), dtype=like.dtype, device=self.device)
                self.filled = torch.zeros(self.frame.count, dtype=torch.bool, device=self.device)
        assert self.filled is not None
        missing = (~self.filled).nonzero()[:, 0] if rows is None else rows[~self.filled[rows]]
        if len(missing) == self.frame.count and rows is None:
            self.held.copy_(evaluated(self.expression, None))
        elif len(missing):
            self.frame.put(self.held, missing, evaluated(self.expression, Rows(missing), beside))
        self.filled[missing] = True

    def settle(self) -> None:
        """Compute it now, so that it holds nothing of a step any longer."""
        if self.held is None:
            demand = Demand(is_loops=False)
            value = evaluated(self.expression, None, demand=demand)
            self.when_read = [source.to_note_later() for source in demand.wholes]
            self.hold(value)

    def settle_if_computed(self) -> None:
        """The same where no step need run for it."""
        value = None if self.held is not None else value_if_computed(self.expression)
        if value is not None:
            self.hold(value)

    def hold(self, value: Tensor) -> None:
        """From now on it is this tensor."""
        self.held, self.filled = value, torch.ones(self.frame.count, dtype=torch.bool, device=self.device)
        self.write(Given(value, self.frame))

    def write(self, expression: Expression) -> None:
        """From now on it holds something else."""
        self.expression, self.last, self.agrees = expression, None, False


@dataclass(frozen=True, eq=False)
class View:
    """What one late tensor shows. It lives as long as that does."""

    memory: Memory
    geometry: Geometry

    def announce(self) -> None:
        """Let the calls whose results it is computed of know that somebody holds it."""
        for source in self.memory.expression.sources:
            source.views.append(ref(self))

    @property
    def shows_few(self) -> bool:
        """Whether it shows so few rows that a copy of it is meant to be kept."""
        return self.geometry.frame.count < FEW * self.memory.frame.count

    def value(self) -> Tensor:
        """The values, to be read and not written."""
        return self.memory.value(self.geometry)

    def given(self) -> Tensor:
        """The values that a step is given, and that it stays with: read later it is what the step has seen."""
        value, memory = self.value(), self.memory
        if memory.held is None and memory.last is not None:
            memory.hold(memory.last)
        return value

    def positions(self) -> Tensor:
        """The values, to say which rows of others are read or written."""
        is_mask = self.geometry.like.dtype is torch.bool
        return self.memory.mask(self.geometry) if is_mask else self.memory.value(self.geometry)

    def handed_out(self) -> Tensor:
        """The values in memory that the loop may write."""
        return self.memory.handed_out(self.geometry)

    def ask(self, demand: Demand) -> None:
        """Ask for what it shows."""
        if not self.geometry.like.numel():
            return
        is_all = self.memory.shows_all(self.geometry)
        demand.want(self.memory.expression, None if is_all else Rows(self.geometry.numbers()))


def tokens_wanted(source: Source) -> Tensor | None:
    """The tokens of a call that late tensors name which somebody still holds, bool ``[B, N]``; None where none does."""
    demand = Demand()
    for held in source.views:
        view = held()
        if view is not None:
            view.ask(demand)
    return demand.union(source)


def has_run(expression: Expression) -> bool:
    """Whether all calls that it is computed of have been computed."""
    return all(source.has(None) for source in expression.sources)


def value_if_computed(expression: Expression) -> Tensor | None:
    """The whole of an expression if no step need run for it."""
    if not has_run(expression):
        return None
    demand = Demand()
    demand.want(expression, None)
    if demand.wholes or not all(source.has(demand.union(source)) for source in demand.tokens):
        return None
    return evaluated(expression, None)


def is_still_wanted(source: Source, elements: int) -> bool:
    """Whether somebody holds late tensors of a call whose largest result has so many elements.

    Those that are much smaller are computed if no step need run for it, so that they need not hold all of it.
    """
    live = [view for own in source.views if (view := own()) is not None]
    for view in live:
        memory = view.memory
        is_small = memory.whole.like.numel() < SMALL * elements
        if is_small and not isinstance(memory.expression, Result) and has_run(memory.expression):
            memory.settle()
    return any(source in view.memory.expression.sources for view in live)


@torch.no_grad()
def evaluated(
    expression: Expression, rows: Rows | None, beside: Rows | None = None, demand: Demand | None = None
) -> Tensor:
    """Rows ``[R, C]`` of an expression, or its whole value.

    Args:
        beside: rows that are computed with them if masks or slices say which these are. demand: where it is written
            down what is asked for.
    """
    demand = Demand() if demand is None else demand
    compute = demand.want(expression, rows)
    if beside is not None:
        others = Demand()
        others.want(expression, beside)
        if not others.wholes:
            for source, tokens in others.tokens.items():
                demand.tokens.setdefault(source, []).extend(tokens)
    with put_back():
        demand.meet()
    # Casts were recorded where the loop's autocast made them.
    with torch._C._DisableAutocast():
        value: Tensor = compute()
    return value

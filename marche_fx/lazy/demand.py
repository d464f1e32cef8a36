"""Which rows of a step's results are wanted: all are asked for before any is computed, so that a step runs once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import ref

import torch
from torch import Tensor

from .geometry import sent

Compute = Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a value.

    Attributes:
        numbers: ``[R]`` int64, on the host where it knows them, as those of a slice. are_chosen: whether the loop named
            them, by a mask or an index; a slice of most rows may be meant as the whole.
    """

    numbers: Tensor
    are_chosen: bool = False

    @classmethod
    def first(cls, count: int) -> Rows:
        """So many rows in their order."""
        return cls(torch.arange(count))

    def on(self, device: torch.device) -> Tensor:
        return sent(self.numbers, device)

    def __len__(self) -> int:
        return len(self.numbers)


class ByToken(Protocol):
    """A result of which those rows are there that were asked for, and not all."""

    def of(self, tokens: Tensor) -> Tensor:
        """The rows of tokens ``[R]``, ``sample N + token`` each: ``[R, ...]``, with its other dimensions in order."""


class Source(Protocol):
    """One call of a step.

    Attributes:
        views: late tensors of its results, or of what was computed of these.
    """

    @property
    def views(self) -> list[ref[Any]]: ...

    def read(self, tokens: Tensor | None, *, is_read: bool = True) -> Sequence[Any]:
        """The results, with the rows of ``tokens``, bool ``[B, N]``, computed; as a policy chooses where None.

        Each is a tensor, or has the rows alone that were asked for: where None, it is a tensor.

        Args:
            is_read: whether the loop reads it all; not where it is wanted for rows that were asked for just before, or
                is kept for a later read.
        """

    def has(self, tokens: Tensor | None) -> bool:
        """Whether it has been computed, with the rows of ``tokens``."""

    def to_note_later(self) -> Callable[[], None]:
        """What is called when the loop reads as a whole what was computed of the results as they are, for it to keep.

        It holds none of them.
        """


class Prepared(Protocol):
    """What is asked for before it is computed."""

    def prepare(self, rows: Rows | None, demand: Demand) -> Compute: ...


@dataclass
class Wanted:
    """Rows of something, computed when they are first taken and forgotten when they were taken as often as wanted."""

    of: Prepared
    rows: Rows | None
    compute: Compute
    uses: int = 0
    value: Any = None

    def take(self) -> Any:
        if self.value is None:
            self.value = self.compute()
        value, self.uses = self.value, self.uses - 1
        if not self.uses:
            self.value = None
        return value


@dataclass
class Demand:
    """What one read wants.

    Args:
        is_loops: whether the loop reads it, and not we, who compute what it may read later.
    """

    is_loops: bool = True
    tokens: dict[Source, list[Tensor]] = field(default_factory=dict)
    """Of each call the tokens whose rows are wanted, bool ``[B, N]`` each."""
    wholes: set[Source] = field(default_factory=set)
    """Calls of which all rows are wanted, as old as they may be."""
    meant: set[Source] = field(default_factory=set)
    """Those of these whose other rows the loop reads too, and not only what is computed through all of them."""
    results: dict[Source, Sequence[Any]] = field(default_factory=dict)
    wanted: dict[tuple[int, int], Wanted] = field(default_factory=dict)

    def want(self, of: Prepared, rows: Rows | None) -> Compute:
        """Rows of an expression, which may be wanted more than once and are computed once."""
        key = id(of), id(rows)
        if key not in self.wanted:
            self.wanted[key] = Wanted(of, rows, of.prepare(rows, self))
        self.wanted[key].uses += 1
        return self.wanted[key].take

    def want_all(self, of: Prepared, named: Rows | None) -> Compute:
        """All rows, of which those that are ``named`` are computed in the step whose result this is; the others may be
        older."""
        if named is None:
            return self.want(of, None)
        self.want(of, named)
        meant = {*self.meant}
        compute = self.want(of, None)
        self.meant = meant
        return compute

    def ask(self, source: Source, tokens: Tensor | None) -> None:
        if tokens is None:
            self.wholes.add(source)
            if self.is_loops:
                self.meant.add(source)
        else:
            self.tokens.setdefault(source, []).append(tokens)

    def meet(self) -> None:
        """Run the steps whose results are wanted."""
        for source in self.tokens:
            self.results[source] = source.read(self.union(source))
        for source in self.wholes:
            self.results[source] = source.read(None, is_read=source in self.meant)

    def union(self, source: Source) -> Tensor | None:
        """All tokens of a call that are wanted by name, bool ``[B, N]``."""
        masks = self.tokens.get(source, [])
        return torch.stack(masks).any(0) if len(masks) > 1 else masks[0] if masks else None

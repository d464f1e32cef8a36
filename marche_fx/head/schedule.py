"""The timesteps of one denoising, in the order in which its loop visits them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .calls import Key


@dataclass(frozen=True, eq=False)
class Time:
    """The times of one call.

    Attributes:
        leaves: its tensors, ``[1, ..]`` of those with rows.
    """

    key: Key
    leaves: tuple[Tensor, ...] = field(repr=False)

    @classmethod
    def of(cls, key: Key, leaves: Sequence[Tensor]) -> Time:
        return cls(key, tuple((leaf[:1] if leaf.ndim else leaf).detach().clone() for leaf in leaves))

    @classmethod
    def alike(cls, leaf: Tensor, number: float) -> Time:
        """The time of a call whose one time argument, of one number for each row, is like ``leaf``."""
        first = leaf[:1] if leaf.ndim else leaf
        # As the leaf's dtype rounds it; told on the host, without waiting for a device.
        key = (torch.tensor(number, dtype=leaf.dtype).item(),)
        return cls(key, (torch.full_like(first, number),))


@dataclass(frozen=True, eq=False)
class Announced:
    """What a loop said when it began a denoising: its timesteps, in their order. Another one is another denoising."""

    times: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Schedule:
    """The calls of a denoising by their times, some of which a solver may visit more than once.

    Attributes:
        announced: the timesteps that the loop announced, of which these are all or some; None where it did not.
    """

    calls: tuple[Time, ...]
    announced: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        distinct: dict[Key, Time] = {}
        for own in self.calls:
            distinct.setdefault(own.key, own)
        object.__setattr__(self, "distinct", tuple(distinct.values()))
        object.__setattr__(self, "numbers", {key: number for number, key in enumerate(distinct)})

    distinct: tuple[Time, ...] = field(init=False, repr=False)
    numbers: dict[Key, int] = field(init=False, repr=False)
    """Of each of the distinct times its number among them."""

    def next_call(self, last: int, key: Key) -> int | None:
        """The first call after ``last`` at a time; None where there is none."""
        found = (number for number in range(last + 1, len(self.calls)) if self.calls[number].key == key)
        return next(found, None)

    def holds(self, keys: Sequence[Key]) -> bool:
        """Whether a loop that visited these times was one of this schedule, or a part of one."""
        last: int | None = -1
        for key in keys:
            last = None if last is None else self.next_call(last, key)
        return last is not None

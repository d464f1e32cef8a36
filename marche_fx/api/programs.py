"""The programs of a step: found by the sizes of a call, and no more of them than there is room for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from ..passes.capture.arguments import PLAIN, flattened
from ..passes.capture.captured import Input
from ..passes.recent import unused_for_longest
from ..runtime.program import Program

Pattern = tuple[tuple[bool, ...] | None, ...]
"""For each leaf of a step's arguments which of its sizes a program is for; None where it is no tensor."""

Key = tuple[Any, ...]
"""The sizes and plain values of a call that a pattern names, and where they stand."""


class Programs:
    """Programs of a step, in the order in which they were made; never changed, so that any thread may read it.

    A call is compared with those alone that are for its sizes and plain values, which are few: others, as for other
    dtypes, devices, weights or branches, differ in more than these.

    Args:
        dropped: how many there were and are no more.
    """

    def __init__(self, programs: Sequence[Program] = (), dropped: int = 0) -> None:
        self.programs = tuple(programs)
        self.members = frozenset(programs)
        self.dropped = dropped
        self.by_key: dict[Pattern, dict[Key, list[Program]]] = {}
        for own in self.programs:
            pattern = pattern_of(own.plan.original.inputs)
            key = key_of(pattern, [given.value for given in own.plan.original.inputs])
            assert key is not None
            self.by_key.setdefault(pattern, {}).setdefault(key, []).append(own)

    def __iter__(self) -> Iterator[Program]:
        return iter(self.programs)

    def __len__(self) -> int:
        return len(self.programs)

    def __contains__(self, program: object) -> bool:
        return program in self.members

    def __getitem__(self, number: int) -> Program:
        return self.programs[number]

    def near(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Program]:
        """Those that are for the sizes and plain values of a call, in their order as far as there are several."""
        leaves, _ = flattened(args, kwargs)
        keys = ((key_of(pattern, leaves), known) for pattern, known in self.by_key.items())
        return [own for key, known in keys if key is not None for own in known.get(key, ())]

    def with_new(self, program: Program, args: tuple[Any, ...], kwargs: dict[str, Any], most: int) -> Programs:
        """These and one more, which was made for a call, in place of any that accepts it.

        Where that is more than ``most``, those go that were not used for longest and of which no session has caches.
        """
        replaced = [own for own in self.near(args, kwargs) if own.accepts(args, kwargs)]
        kept = [*(own for own in self.programs if own not in replaced), program]
        idle = (own for own in kept[:-1] if not own.has_caches)
        gone = unused_for_longest(idle, len(kept) - most)
        return Programs([own for own in kept if own not in gone], self.dropped + len(gone))


def pattern_of(inputs: Sequence[Input]) -> Pattern:
    return tuple(
        tuple(isinstance(size, int) for size in own.value.shape) if own.node is not None else None for own in inputs
    )


def key_of(pattern: Pattern, leaves: Sequence[Any]) -> Key | None:
    """What a pattern names of the leaves of a call; None where they are no such leaves."""
    if len(leaves) != len(pattern):
        return None
    found: list[Any] = []
    for sizes, leaf in zip(pattern, leaves):
        if sizes is None and isinstance(leaf, PLAIN):
            found.append((type(leaf), leaf))
        elif sizes is not None and isinstance(leaf, Tensor) and leaf.ndim == len(sizes):
            found.append(tuple(size for size, is_fixed in zip(leaf.shape, sizes) if is_fixed))
        else:
            return None
    return tuple(found)

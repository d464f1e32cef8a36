"""What was used last, so that of too many things those go that were not used for longest."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

CLOCK = itertools.count(1)
"""Counts uses of anything, so that of two things it is known which was used later."""


class Used(Protocol):
    """What may be used; ``used`` says when it last was."""

    used: int


Own = TypeVar("Own", bound=Used)
Key = TypeVar("Key")
Value = TypeVar("Value")


def use(own: Own) -> Own:
    """It is used now."""
    own.used = next(CLOCK)
    return own


def unused_for_longest(owns: Iterable[Own], count: int) -> list[Own]:
    """So many of them, none where ``count`` is below one."""
    return sorted(owns, key=lambda own: own.used)[: max(count, 0)]


@dataclass(eq=False)
class Entry(Generic[Key, Value]):
    key: Key
    value: Value
    used: int = 0


class Recent(Generic[Key, Value]):
    """A dictionary of ``most`` entries, or of more as long as they are in use; any thread may read and write it.

    Args:
        is_in_use: of a value, whether it stays, however long ago it was asked for.

    Attributes:
        dropped: how many there were and are no more.
    """

    def __init__(self, most: int, is_in_use: Callable[[Value], bool] = lambda own: False) -> None:
        self.most = most
        self.is_in_use = is_in_use
        self.dropped = 0
        self.entries: dict[Key, Entry[Key, Value]] = {}
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.entries)

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def items(self) -> Iterator[tuple[Key, Value]]:
        """In the order in which they were put, which is no use of them."""
        return ((key, own.value) for key, own in self.entries.items())

    def get(self, key: Key) -> Value | None:
        """The value of a key, which is a use of it."""
        found = self.entries.get(key)
        return None if found is None else use(found).value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, in place of those that there is no room for."""
        with self.lock:
            new = use(Entry(key, value))
            others = [own for own in self.entries.values() if own.key != key]
            idle = (own for own in others if not self.is_in_use(own.value))
            gone = {own.key for own in unused_for_longest(idle, len(others) + 1 - self.most)}
            self.dropped += len(gone)
            # Another dictionary: a reader may be looking through this one.
            self.entries = {own.key: own for own in (*others, new) if own.key not in gone}

    def clear(self) -> None:
        """Keep nothing of what there was, which is not counted as dropped."""
        with self.lock:
            self.entries = {}

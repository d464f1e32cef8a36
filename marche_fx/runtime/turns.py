"""Find out that calls take turns, of more sequences or conditions than a stream remembers."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from typing import Protocol, TypeVar

import numpy as np

from .call_inputs import CallInputs, tokens_moved

REMEMBERED = 4
"""Calls of a program that a stream remembers: as many conditions may take turns before they are told apart."""

USUAL_STREAMS = 8
"""Streams of a session; one more takes the place of the one that was not called for longest."""

MOST_STREAMS = 16
"""The same where it is known that they are called again: calls take turns, or a user names them."""

LOOKED_BACK = 64
"""Calls of a program among which an earlier one is looked for: more sequences than that in turn are one stream."""

FEW = 8
"""Two sequences differ in more than one of so many tokens."""


class HasNumber(Protocol):
    number: int


Numbered = TypeVar("Numbered", bound=HasNumber)


class Turns:
    """The last calls of a program in a session, of whichever stream.

    Attributes:
        calls: each with the number of its stream, the latest last.
        are_taken: whether calls take turns; from then on a call goes on with the nearest one before.
    """

    def __init__(self) -> None:
        self.calls: deque[tuple[CallInputs, int]] = deque(maxlen=LOOKED_BACK)
        self.back = 0
        """So many calls before the last one was that it came back to; 0 where it did not."""
        self.are_taken = False
        self.has_lost = False
        """Whether the stream that a call would have gone on with was closed, as there was no room for so many."""

    def note(self, call: CallInputs, stream: int) -> None:
        self.calls.append((call, stream))

    def have_begun(self, call: CallInputs, last: CallInputs, times: Collection[int]) -> bool:
        """Whether it is found out by this call that they are taken; all of them have been looked at.

        One call that is nearer to an earlier one than to the last may be a loop that takes back what it drew. Two in a
        row that come back by as many calls are turns.

        Args:
            last: the nearest of the last calls of all streams.
        """
        if self.are_taken or len(self.calls) <= REMEMBERED:
            return False
        before, self.back = self.back, self.comes_back(call, last, times)
        self.are_taken = 0 < self.back == before
        return self.are_taken

    def comes_back(self, call: CallInputs, last: CallInputs, times: Collection[int]) -> int:
        """How many calls ago, more than a stream remembers, one was that is far nearer than the last; 0 if none was.

        It is so too where only the condition is that of an earlier call, if tokens were drawn since then: a generation
        that begins anew goes through the same times, and has drawn nothing yet.
        """
        conditions, rows = call.distance(last, times)
        # A loop that draws the same few tokens again and again comes back, too.
        is_other = FEW * rows > sum(np.size(own.rows) for own in call.leaves)
        if not conditions and not is_other:
            return 0
        back, near = self.nearest(call, times)
        if back < REMEMBERED or self.goes_on(back):
            return 0
        same, moved = call.distance(near, times)
        is_near = same <= conditions and 2 * moved < rows and is_other and tokens_moved(call, last)
        is_again = same < conditions and moved <= rows + conditions and tokens_moved(call, near)
        return back if is_near or is_again else 0

    def nearest(self, call: CallInputs, times: Collection[int]) -> tuple[int, CallInputs]:
        """How many calls before the last one the nearest was, and which; the latest of those that are as near."""
        before = [own for own, _ in reversed(self.calls)]
        back = min(range(len(before)), key=lambda number: call.distance(before[number], times))
        return back, before[back]

    def goes_on(self, back: int) -> bool:
        """Whether the stream of a call was not called since."""
        own, *later = [stream for _, stream in self.calls][-1 - back :]
        return own not in later

    def stream_of(self, call: CallInputs, times: Collection[int], streams: Iterable[Numbered]) -> Numbered | None:
        """That of the nearest call, unless it was called again since, with what belongs to another."""
        back, _ = self.nearest(call, times)
        if not self.goes_on(back):
            return None
        number = self.calls[-1 - back][1]
        found = next((own for own in streams if own.number == number), None)
        self.has_lost |= found is None
        return found

"""Which argument of a denoiser is what, found by what moves between two calls of one denoising."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import Tensor

from ..passes.analysis.denoiser import Role
from .calls import Call, Held, look
from .schedule import Time

TURNS = 4
"""So many denoisings may take turns, as the two calls of guidance do."""

FEWEST = 4
"""So many rows tell a noisy value, of which two guidance halves may be equal, from a time."""

PATIENT = 16
"""After so many calls of denoisings too short for pairs in a row, single pairs tell."""

OFTEN = 3
"""So many single pairs."""

FRUITLESS = 32
"""After so many calls that do not tell which argument is what, the method may be no denoiser."""

Roles = tuple[Role, ...]
"""Of each tensor among the arguments."""


class RoleFinder:
    """Looks at calls until it knows."""

    def __init__(self) -> None:
        self.calls: list[list[Held]] = []
        """The last calls, as many as tell."""
        self.streaks: dict[int, tuple[Roles, int]] = {}
        """By how many calls back was looked: what was seen, and how often in a row."""
        self.pairs: Counter[Roles] = Counter()
        """How often each was seen that tells, however many calls back was looked."""
        self.turns = 1
        """How many denoisings take turns."""
        self.is_of_one_denoising = True
        """Whether the last calls that tell are surely of the last one's denoising."""
        self.looked = 0
        """At how many calls with rows enough."""

    @property
    def is_fruitless(self) -> bool:
        return self.looked == FRUITLESS

    def roles(self, call: Call) -> Roles | None:
        """What each argument is; None while it is not known.

        Between two calls of a denoising the noisy value moves, each row in its own way; the time moves, and is the same
        in all rows; the condition stays. It must seem so once more than calls lie between, for so many pairs in a row
        may be of two denoisings. Where rows are too few or too alike to tell, later calls will. A denoising of a few
        calls, some of which a solver of second order makes at one timestep, has not so many pairs in a row: then what
        single pairs tell in which most arguments stay, for between two denoisings the condition moves, too.
        """
        held = [Held.of(leaf) for leaf in call.leaves]
        self.looked += any(leaf.ndim and len(leaf) >= FEWEST for leaf in call.leaves)
        found: Roles | None = None
        for turns, before in zip(range(1, TURNS + 1), reversed(self.calls)):
            seen = roles_between(before, call)
            last, count = self.streaks.get(turns, (seen, 0))
            self.streaks[turns] = (seen, count + 1 if seen == last else 1)
            if not is_told(seen, call):
                continue
            self.pairs[seen] += 1
            is_streak = self.streaks[turns][1] > turns and seen == self.likeliest(seen)
            if found is None and (is_streak or self.is_likely(seen)):
                self.turns, self.is_of_one_denoising, found = turns, is_streak, seen
        self.calls = [*self.calls, held][-TURNS * (TURNS + 2) :]
        return found

    def likeliest(self, seen: Roles) -> Roles:
        """``seen``, or what other pairs were in which more arguments stay, or as many more often."""
        often = [seen, *(own for own, count in self.pairs.items() if count >= OFTEN)]
        return max(often, key=lambda own: (own.count("condition"), self.pairs[own]))

    def is_likely(self, seen: Roles) -> bool:
        """Whether of many calls pairs were often this, and nothing likelier, and some argument stays."""
        is_often = self.looked >= PATIENT and self.pairs[seen] >= OFTEN
        return is_often and "condition" in seen and seen == self.likeliest(seen)

    def times(self, roles: Roles) -> list[Time]:
        """Those of the earlier calls of the last one's denoising that told what is what."""
        if not self.is_of_one_denoising:
            return []
        earlier = self.calls[-1 - self.turns :: -self.turns][: self.turns + 1]
        found = []
        for held in reversed(earlier):
            leaves = [own.values for own, role in zip(held, roles) if role == "time"]
            found.append(Time.of(look(leaves).key or (), leaves))
        return found


def roles_between(before: Sequence[Held], call: Call) -> Roles:
    """What moved since an earlier call; empty where the two have other numbers of rows."""
    if [held.values.shape for held in before] != [leaf.shape for leaf in call.leaves]:
        return ()
    seen = look(call.leaves, list(zip(call.leaves, before)))
    return tuple(role_of(same, uniform is not None) for same, uniform in zip(seen.same, seen.times))


def role_of(stays: bool, is_uniform: bool) -> Role:
    if stays:
        return "condition"
    return "time" if is_uniform else "noisy"


def is_told(roles: Roles, call: Call) -> bool:
    return {"noisy", "time"} <= {*roles} and rows_of(call.leaves, roles) >= FEWEST


def rows_of(leaves: Sequence[Tensor], roles: Sequence[Role]) -> int:
    """The number of rows of the noisy value."""
    return next(len(leaf) for leaf, role in zip(leaves, roles) if role == "noisy")

"""What of a head is reused from one timestep to the next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..checks import is_count, shown
from ..errors import ArgumentError

Stencil = tuple[tuple[int, float], ...]
"""Numbers of computed timesteps with their weights, which sum to one."""


class SlowReuse(ABC):
    """At which timesteps values of time and condition are computed, and what stands for them at the others."""

    @abstractmethod
    def computed(self, count: int) -> tuple[int, ...]:
        """Numbers of the timesteps, of ``count`` in their order, at which the values are computed."""

    @abstractmethod
    def stencil(self, number: int, computed: Sequence[int], times: Sequence[float]) -> Stencil:
        """Of which computed timesteps the values at timestep ``number`` are made.

        Args:
            computed: what `computed` said. times: of all timesteps, in their order.
        """


@dataclass(frozen=True)
class Hold(SlowReuse):
    """Computed at every ``every``-th timestep and held until the next."""

    every: int

    def __post_init__(self) -> None:
        check_count("Hold", "every", self.every, least=1)

    def computed(self, count: int) -> tuple[int, ...]:
        return tuple(range(0, count, self.every))

    def stencil(self, number: int, computed: Sequence[int], times: Sequence[float]) -> Stencil:
        return ((computed[bisect_right(computed, number) - 1], 1.0),)


@dataclass(frozen=True)
class Interpolate(SlowReuse):
    """Computed at ``points`` of the timesteps, both ends among them, and interpolated in time between these.

    Attributes:
        order: ``"linear"`` between the two nearest, or ``"cubic"``: the polynomial through the four nearest.
    """

    points: int
    order: Literal["linear", "cubic"] = "cubic"

    def __post_init__(self) -> None:
        check_count("Interpolate", "points", self.points, least=2)
        if not isinstance(self.order, str) or self.order not in ("linear", "cubic"):
            raise ArgumentError(f'the order of Interpolate must be "linear" or "cubic", got {self.order!r}')

    def computed(self, count: int) -> tuple[int, ...]:
        if count <= self.points:
            return tuple(range(count))
        return tuple(round(own * (count - 1) / (self.points - 1)) for own in range(self.points))

    def stencil(self, number: int, computed: Sequence[int], times: Sequence[float]) -> Stencil:
        if number in computed:
            return ((number, 1.0),)
        width = min(2 if self.order == "linear" else 4, len(computed))
        first = min(max(bisect_right(computed, number) - width // 2, 0), len(computed) - width)
        through = computed[first : first + width]
        return tuple(zip(through, lagrange(times[number], [times[own] for own in through])))


def lagrange(at: float, points: Sequence[float]) -> list[float]:
    """Weights of the values at ``points`` in the polynomial through them, ``at`` a place."""
    found = []
    for own in points:
        weight = 1.0
        for other in points:
            if other != own:
                weight *= (at - other) / (own - other)
        found.append(weight)
    return found


@dataclass(frozen=True)
class HoldBranches:
    """Residual branches, ``x + gate * mlp(norm(x))``, computed at every ``every``-th call and held until the next.

    Attributes:
        whole: numbers of those branches, in the order in which they are added, that are held as they are added, gate
            and all, so that their blocks are left out; numbers past the last one name none. Of the others the last
            product is held, and its gate is that of the timestep.
    """

    every: int
    whole: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_count("HoldBranches", "every", self.every, least=1)
        if not isinstance(self.whole, tuple):
            raise ArgumentError(f"whole of HoldBranches must be a tuple of numbers, got {self.whole!r}")
        for number in self.whole:
            check_count("HoldBranches", "whole", number, least=0)


@dataclass(frozen=True)
class HeadReuse:
    """What of a head is reused between the timesteps of one denoising; nothing by default, which is exact.

    What does not depend on the noisy value is computed apart in any case: of the condition alone once, of the time
    alone for all timesteps at once, of both for several timesteps together.

    Attributes:
        slow: at which timesteps values of time and condition, such as AdaLN's shift, scale and gate, are computed, a
            `Hold` or an `Interpolate`; None for all.
        guidance: the unconditional half of guidance is computed at every so many calls. At the others it is the
            conditional half less their last difference.
        branches: at which calls residual branches are computed; None for all. Where guidance is reused too, the calls
            that compute both halves compute the branches.
        counted_from: the ``"first"`` call of a denoising, or the ``"last"``, that these numbers of calls are counted
            from. The first call computes all in any case, and counted from the last, the last one does, too.
    """

    slow: SlowReuse | None = None
    guidance: int = 1
    branches: HoldBranches | None = None
    counted_from: Literal["first", "last"] = "first"

    def __post_init__(self) -> None:
        if self.slow is not None and not isinstance(self.slow, SlowReuse):
            raise ArgumentError(f"slow must be Hold(...), Interpolate(...) or None, got {self.slow!r}")
        check_count("HeadReuse", "guidance", self.guidance, least=1)
        if self.branches is not None and not isinstance(self.branches, HoldBranches):
            raise ArgumentError(f"branches must be HoldBranches(...) or None, got {self.branches!r}")
        if self.counted_from not in ("first", "last"):
            raise ArgumentError(f'counted_from must be "first" or "last", got {self.counted_from!r}')

    def calls_of_both_halves(self, count: int) -> frozenset[int]:
        """Numbers of the calls, of ``count`` in a denoising, that compute both halves of guidance."""
        return self.every_so_many(count, self.guidance)

    def calls_of_branches(self, count: int, *, has_halves: bool) -> frozenset[int]:
        """Numbers of the calls that compute residual branches."""
        own = self.every_so_many(count, 1 if self.branches is None else self.branches.every)
        return own | self.calls_of_both_halves(count) if has_halves and self.guidance > 1 else own

    def every_so_many(self, count: int, every: int) -> frozenset[int]:
        """Numbers of the first of ``count`` calls and of every ``every``-th after it, or before the last."""
        first = 0 if self.counted_from == "first" else (count - 1) % every
        return frozenset({0, *range(first, count, every)}) if count else frozenset()


def check_count(kind: str, name: str, value: object, *, least: int) -> None:
    if not is_count(value, least):
        raise ArgumentError(f"{name} of {kind} must be an int of at least {least}, got {shown(value)}")


PRESETS = {
    "exact": HeadReuse(),
    "balanced": HeadReuse(Interpolate(20), guidance=4),
    "lazymar": HeadReuse(guidance=7, branches=HoldBranches(7, whole=(1, 2, 3, 4)), counted_from="last"),
}


def reuse_of(given: object) -> HeadReuse:
    """The policy that was given, by name or as it is.

    Raises:
        ArgumentError: it is none.
    """
    if isinstance(given, str):
        if given not in PRESETS:
            raise ArgumentError(f"reuse names an unknown head preset {given!r}; there are {', '.join(PRESETS)}")
        return PRESETS[given]
    if not isinstance(given, HeadReuse):
        raise ArgumentError(f"reuse must be a HeadReuse or the name of a preset, got {given!r}")
    return given

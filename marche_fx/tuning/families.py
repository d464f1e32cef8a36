"""The policies that a search tries, unless it is told which: in families, each from cheap to dear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..refresh import InterleavedRefresh, NeighbourRefresh, RefreshPolicy, SelectiveRefresh, StalenessRefresh

FRACTIONS = (0.0, 0.02, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.7)
"""Shares of the token axis among which a search halves."""

BOUNDS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.4)
"""The same for bounds on the queried tokens."""

FAMILIES: dict[str, Sequence[RefreshPolicy]] = {
    "selective": [SelectiveRefresh(fraction) for fraction in FRACTIONS],
    "selective, one warm-up step": [SelectiveRefresh(fraction, warmup=1) for fraction in FRACTIONS],
    "selective, loose": [SelectiveRefresh(fraction, warmup=1, tolerance=0.3) for fraction in FRACTIONS],
    "oldest first": [StalenessRefresh(fraction, warmup=1) for fraction in FRACTIONS],
    "full steps between": [InterleavedRefresh(period, warmup=2) for period in (8, 6, 5, 4, 3, 2)],
}

BOUNDED: dict[str, Sequence[RefreshPolicy]] = {
    "nearest first, bounded": [NeighbourRefresh(bound / 2, warmup=2, queried=bound) for bound in BOUNDS],
    "nearest first in a line, bounded": [
        NeighbourRefresh(bound / 2, warmup=2, grid="line", radius=4.0, queried=bound) for bound in BOUNDS
    ],
    "oldest first, bounded": [StalenessRefresh(bound / 2, warmup=2, queried=bound) for bound in BOUNDS],
}
"""Of the tokens that the loop reads so many are computed, of the others half as many. None by attention, which does not
tell how stale a token's own result is."""

MANY = 0.2
"""A loop that reads more than this share of the tokens in a step computes most of its rows for that reason."""


def families_for(share_read: float) -> Mapping[str, Sequence[RefreshPolicy]]:
    """Those to search for a loop that reads such a share of the tokens in a step."""
    return {**FAMILIES, **BOUNDED} if share_read > MANY else FAMILIES

"""What every refresh policy is, and two of them at once: ``SelectiveRefresh(0.05) + StalenessRefresh(0.05)``."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..checks import check_kind, is_count
from ..errors import PolicyError
from .checking import answer_of
from .history import History, Refresh
from .signals import Signal


class RefreshPolicy:
    """What `transform` takes as ``refresh``; a policy of your own overrides `choose`.

    Attributes:
        tolerance: how far a token's input may move, relative to its norm, before the token counts as changed.
        signals: what to measure; `choose` finds it in the history.
        exact_sites: so many attention sites, from the first on, run on all tokens in every step, with all that they
            read; later ones are recomputed for active tokens only.
    """

    tolerance: float = 0.1
    signals: tuple[Signal, ...] = ()
    exact_sites: int = 0

    def choose(self, history: History) -> Refresh:
        """The choice for the step that is about to run."""
        raise PolicyError(f"{type(self).__name__} does not say what to refresh: override choose(self, history)")

    def __repr__(self) -> str:
        """The arguments that are not the defaults."""
        own: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(self) if dataclasses.is_dataclass(self) else ()
        given = {each.name: getattr(self, each.name) for each in own if each.init}
        defaults = {each.name: each.default for each in own}
        changed = [f"{name}={value!r}" for name, value in given.items() if value != defaults[name]]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __add__(self, other: RefreshPolicy) -> Both:
        return Both(self, other)


@dataclass(frozen=True)
class Both(RefreshPolicy):
    """The tokens that ``first`` chooses, then, with its own budget, those that ``second`` does of the rest.

    A step that either wants in full is in full. An answer of either that cannot be done is a `PolicyError` that names
    the policy, not the sum.
    """

    first: RefreshPolicy
    second: RefreshPolicy

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            check_kind(f"{name} of a sum of policies", getattr(self, name), RefreshPolicy)

    # These three are computed of the parts; other policies have attributes, which mypy lets no property override.
    @property
    def tolerance(self) -> float:  # type: ignore[override]
        return min(self.first.tolerance, self.second.tolerance)

    @property
    def exact_sites(self) -> int:  # type: ignore[override]
        return max(self.first.exact_sites, self.second.exact_sites)

    @property
    def signals(self) -> tuple[Signal, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys((*self.first.signals, *self.second.signals)))

    def choose(self, history: History) -> Refresh:
        spent = history.spent_by_parts.setdefault(id(self), [0.0, 0.0])
        first, second = (
            answer_of(policy, replace(history, spent=own)) for policy, own in zip((self.first, self.second), spent)
        )
        by_policy = first.by_policy + second.by_policy
        # What one of them says of the queried tokens holds for the sum.
        bound = first if first.queried is not None else second
        about = (bound.queried, bound.priority if bound.urgency is None else bound.urgency)
        count = first.count + second.count
        if count < history.tokens:
            spent[:] = [own + part.count / history.tokens for own, part in zip(spent, (first, second))]
        if count >= history.tokens or first.priority is None or second.priority is None:
            # A choice without a priority is of none or of all.
            priority = second.priority if first.priority is None else first.priority
            return Refresh(min(count, history.tokens), priority, *about, by_policy)
        taken = [own for own in (history.changed, history.queried) if own is not None]
        score = first.priority.float()
        for must in taken:
            score = score.masked_fill(must, -math.inf)
        chosen = score.topk(first.count, 1).indices
        # Above every number that the second gives.
        rest = second.priority.float().clamp(max=torch.finfo(torch.float32).max / 2)
        return Refresh(count, rest.scatter(1, chosen, math.inf), *about, by_policy)

    def __repr__(self) -> str:
        return f"{self.first!r} + {self.second!r}"


def warmup_of(policy: RefreshPolicy) -> int:
    """So many first steps a policy computes in full before others; none where it says that it computes all in full."""
    if is_always_full(policy):
        return 0
    if isinstance(policy, Both):
        return max(warmup_of(policy.first), warmup_of(policy.second))
    own = getattr(policy, "warmup", 0)
    return own if is_count(own) else 0


def is_always_full(policy: RefreshPolicy) -> bool:
    """Whether a policy's arguments say that every step is in full."""
    if isinstance(policy, Both):
        return is_always_full(policy.first) or is_always_full(policy.second)
    share = getattr(policy, "fraction", None)
    shares = share if isinstance(share, Sequence) else [share]
    return 1 in (getattr(policy, "every", None), getattr(policy, "period", None)) or all(own == 1 for own in shares)


def begun_after(policy: RefreshPolicy, warmup: int) -> RefreshPolicy:
    """The same policy with at most so many first steps in full; one that does not say how many as it is."""
    if not dataclasses.is_dataclass(policy) or isinstance(policy, type):
        return policy
    values = {own.name: getattr(policy, own.name) for own in dataclasses.fields(policy) if own.init}
    parts = {name: begun_after(own, warmup) for name, own in values.items() if isinstance(own, RefreshPolicy)}
    first = {"warmup": min(warmup, values["warmup"])} if is_count(values.get("warmup")) else {}
    return dataclasses.replace(policy, **parts, **first)

"""Policies as plain values and JSON files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..checks import check_kind, shown
from ..errors import CheckpointError
from ..plain import as_plain, from_plain, read_plain, write_plain
from .budget import AdaptiveBudget, CosineBudget
from .builtin import (
    DriftRefresh,
    FullRefresh,
    InterleavedRefresh,
    NeighbourRefresh,
    RandomRefresh,
    SelectiveRefresh,
    StalenessRefresh,
)
from .policy import Both, RefreshPolicy

KNOWN: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        AdaptiveBudget,
        Both,
        CosineBudget,
        DriftRefresh,
        FullRefresh,
        InterleavedRefresh,
        NeighbourRefresh,
        RandomRefresh,
        SelectiveRefresh,
        StalenessRefresh,
    )
}


def policy_to_dict(policy: RefreshPolicy) -> dict[str, Any]:
    """The name of a built-in policy and its arguments.

    Raises:
        ArgumentError: it is a policy of the user's own, or holds a function.
    """
    check_kind("policy", policy, RefreshPolicy)
    return as_plain(policy, KNOWN)


def policy_from_dict(values: dict[str, Any]) -> RefreshPolicy:
    """The opposite of `policy_to_dict`.

    Raises:
        CheckpointError: the values are no built-in policy and its arguments.
    """
    policy = from_plain(values, KNOWN)
    if not isinstance(policy, RefreshPolicy):
        raise CheckpointError(f"expected a refresh policy, got {shown(values)}")
    return policy


def save_policy(policy: RefreshPolicy, path: str | Path) -> None:
    """Write a built-in policy as JSON; raises as `policy_to_dict` does."""
    write_plain(path, policy_to_dict(policy))


def load_policy(path: str | Path) -> RefreshPolicy:
    """Read what `save_policy` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or no policy.
    """
    return policy_from_dict(read_plain(path))

"""Policies as plain values and JSON files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, CheckpointError
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
    return as_plain(policy, KNOWN)


def policy_from_dict(values: dict[str, Any]) -> RefreshPolicy:
    """The opposite of `policy_to_dict`.

    Raises:
        CheckpointError: the values are no built-in policy and its arguments.
    """
    policy = from_plain(values, KNOWN)
    if not isinstance(policy, RefreshPolicy):
        raise CheckpointError(f"expected a refresh policy, got {values!r}")
    return policy


def save_policy(policy: RefreshPolicy, path: str | Path) -> None:
    """Write a built-in policy as JSON; raises as `policy_to_dict` does."""
    Path(path).write_text(json.dumps(policy_to_dict(policy), indent=2) + "\n", encoding="utf-8")


def load_policy(path: str | Path) -> RefreshPolicy:
    """Read what `save_policy` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or no policy.
    """
    return policy_from_dict(read_plain(path))


def read_plain(path: str | Path) -> Any:
    """What a JSON file of a policy holds.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read a policy from {path}: {error}") from error


def as_plain(value: Any, known: Mapping[str, type]) -> Any:
    """The names of policies among ``known`` and their arguments, as plain values."""
    if dataclasses.is_dataclass(value) and known.get(type(value).__name__) is type(value):
        fields = {own.name: as_plain(getattr(value, own.name), known) for own in dataclasses.fields(value) if own.init}
        return {"kind": type(value).__name__, **fields}
    if isinstance(value, (list, tuple)):
        return [as_plain(item, known) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ArgumentError(f"only built-in policies of plain values can be saved, and this holds {value!r}")


def from_plain(value: Any, known: Mapping[str, type]) -> Any:
    """The opposite of `as_plain`."""
    if isinstance(value, list):
        return tuple(from_plain(item, known) for item in value)
    if not isinstance(value, dict):
        return value
    kind = known.get(value.get("kind", ""))
    if kind is None:
        raise CheckpointError(f"unknown policy {value.get('kind')!r}; known are {', '.join(sorted(known))}")
    try:
        return kind(**{name: from_plain(own, known) for name, own in value.items() if name != "kind"})
    except (TypeError, ArgumentError) as error:
        raise CheckpointError(f"{value['kind']} cannot be made of {value!r}: {error}") from error

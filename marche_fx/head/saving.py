"""`HeadReuse` as plain values and JSON files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..checks import check_kind, shown
from ..errors import CheckpointError
from ..plain import as_plain, from_plain, read_plain, write_plain
from .policy import HeadReuse, Hold, HoldBranches, Interpolate

KNOWN: dict[str, type] = {kind.__name__: kind for kind in (HeadReuse, Hold, HoldBranches, Interpolate)}


def head_reuse_to_dict(reuse: HeadReuse) -> dict[str, Any]:
    """Its arguments, as plain values.

    Raises:
        ArgumentError: it holds a policy of the user's own.
    """
    check_kind("reuse", reuse, HeadReuse)
    return as_plain(reuse, KNOWN)


def head_reuse_from_dict(values: dict[str, Any]) -> HeadReuse:
    """The opposite of `head_reuse_to_dict`.

    Raises:
        CheckpointError: the values are not those of a `HeadReuse`.
    """
    found = from_plain(values, KNOWN)
    if not isinstance(found, HeadReuse):
        raise CheckpointError(f"expected what a head reuses, got {shown(values)}")
    return found


def save_head_reuse(reuse: HeadReuse, path: str | Path) -> None:
    """Write it as JSON; raises as `head_reuse_to_dict` does."""
    write_plain(path, head_reuse_to_dict(reuse))


def load_head_reuse(path: str | Path) -> HeadReuse:
    """Read what `save_head_reuse` wrote.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    return head_reuse_from_dict(read_plain(path))

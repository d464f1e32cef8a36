"""What was captured or compiled and is kept no more, since there is a bound on it."""

from __future__ import annotations

from collections.abc import Sequence

from ..api.optimization import Optimization
from ..passes.lower.kept import KEPT
from ..passes.trail import counted


def dropped_notes(parts: Sequence[Optimization]) -> list[str]:
    """What there was no room for."""
    dropped = {step.name: step.programs.dropped for part in parts for step in part.steps.values()}
    dropped |= {path: head.known.dropped for part in parts for path, head in part.heads.items()}
    most = parts[0].settings.max_captures
    notes = [
        f"{name}: {counted(count, 'capture')} dropped for others, since max_captures={most}"
        for name, count in dropped.items()
        if count
    ]
    if KEPT.dropped:
        notes.append(
            f"{counted(KEPT.dropped, 'compiled part')} of this process dropped for others, since it keeps {KEPT.most}; "
            "steps that run them have them still"
        )
    return notes

"""FLOPs and times of ways, kept beside what they drew; each can be added to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...errors import CheckpointError
from ...saving.files import DamagedError, read_sealed_json, write_sealed_json
from ..generation import Models
from ..points import Point
from .costs import Times, timed, whole_flops
from .front import Front

FLOPS, TIMES = "flops.json", "times.json"


@dataclass(frozen=True)
class Measured:
    """Of the ways of one folder."""

    out: Path

    def count_flops(self, models: Models, ways: Sequence[Point]) -> None:
        """Count those of ways of which none are known, each kept once it is known."""
        known = self.read(FLOPS)
        for way in ways:
            if way.spec not in known:
                known[way.spec] = whole_flops(models, way)
                write_sealed_json(self.out / FLOPS, known)

    def take_times(self, models: Models, ways: Sequence[Point], batch: int, turns: int) -> None:
        """Take those of all ways anew: times of another run cannot be compared with these."""
        write_sealed_json(self.out / TIMES, asdict(timed(models, ways, batch, turns)))

    def costs_of(self, front: Front) -> Front:
        """The front with what is known; times where those of its first way are."""
        taken, first = self.read(TIMES), front.rows[0].way
        times = Times(**taken) if taken else None
        ratios = times.over(first) if times is not None and first in times.seconds else {}
        return front.with_costs(self.read(FLOPS), ratios, times.batch if times is not None and ratios else None)

    def read(self, name: str) -> dict[str, Any]:
        """What a file holds; nothing where there is none.

        Raises:
            CheckpointError: it is damaged.
        """
        path = self.out / name
        if not path.exists():
            return {}
        try:
            values: dict[str, Any] = read_sealed_json(path)
        except (DamagedError, OSError) as error:
            raise CheckpointError(f"{path} is damaged. Remove it; what it held is then measured again.") from error
        return values

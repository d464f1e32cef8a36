"""How far each way is from real images, at what cost: rows, and the ways compared with one another."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from ...tuning.intervals import Interval
from ..folder import Folder
from ..metrics import frechet, label_accuracy
from ..points import EXACT, Point
from ..rows import differences
from ..settings import Settings
from ..tasks import Task

RECIPE, CACHE, FEWER = "recipe", "cache", "fewer denoising steps"


@dataclass(frozen=True)
class FrontRow:
    """One way.

    Attributes:
        family: ways of which draw one line. steps: decoding steps.
        frechet: distance, 95%. over_first: the same less that of the first way, on the same draws.
        label_accuracy: share of images in which the judge sees their label.
        transformer_flops_ratio: of the transformer, over the original's in as many steps.
        drawing_seconds: of an image in the batches that were drawn, on a machine that may have had other work.
        flops: of an image, of the whole generation. time_ratio: of the whole, over the first way's, where it was
            measured.
    """

    way: str
    family: str
    steps: int
    frechet: Interval
    over_first: Interval
    label_accuracy: float
    transformer_flops_ratio: float
    drawing_seconds: float
    flops: float | None = None
    time_ratio: float | None = None


@dataclass(frozen=True)
class Front:
    """Rows in the order of the ways.

    Attributes:
        settings: that all share. images: of each way.
        differences: of the distances of two ways, ``differences[one][other]`` of one less that of the other.
        references: images that no model drew, where a task has some. batch: at which times were taken.
    """

    settings: dict[str, Any]
    images: int
    rows: tuple[FrontRow, ...]
    differences: dict[str, dict[str, Interval]]
    references: dict[str, Any] = field(default_factory=dict)
    batch: int | None = None

    def with_costs(self, flops: Mapping[str, float], ratios: Mapping[str, float], batch: int | None) -> Front:
        """With what was counted and measured of some ways."""
        rows = tuple(replace(row, flops=flops.get(row.way), time_ratio=ratios.get(row.way)) for row in self.rows)
        return replace(self, rows=rows, batch=batch)

    def cost(self, row: FrontRow) -> float | None:
        """Time over the first way's, or FLOPs where times were not taken of all ways."""
        if self.is_timed:
            return row.time_ratio
        first = self.rows[0].flops
        return None if row.flops is None or first is None else row.flops / first

    @property
    def is_timed(self) -> bool:
        return all(row.time_ratio is not None for row in self.rows)

    def over_recipes(self) -> dict[str, tuple[str, Interval]]:
        """For every other way the best recipe that costs no more, and the way's distance less that one's."""
        known = [(row, cost) for row in self.rows if (cost := self.cost(row)) is not None]
        found = {}
        for row, cost in known:
            cheaper = [other for other, own in known if other.family == RECIPE and own <= cost]
            if row.family != RECIPE and cheaper:
                best = min(cheaper, key=lambda other: other.frechet.estimate)
                found[row.way] = best.way, self.differences[row.way][best.way]
        return found

    def to_dict(self) -> dict[str, Any]:
        rows = [asdict(row) for row in self.rows]
        return {
            "settings": self.settings,
            "images": self.images,
            "references": self.references,
            "time_batch": self.batch,
            "rows": rows,
            "differences": {
                one: {other: asdict(own) for other, own in others.items()} for one, others in self.differences.items()
            },
            "over_recipes": {
                way: {"recipe": recipe, **asdict(own)} for way, (recipe, own) in self.over_recipes().items()
            },
        }


def family_of(way: Point) -> str:
    """What ways of one line share: a rival, recipes, a cache alone, other denoising alone, fewer exact steps."""
    if way.head.rival is not None:
        return way.head.rival
    if way.policy is not None:
        return RECIPE if way.recipe is not None or way.options else CACHE
    return FEWER if way.options else EXACT


def measure(folder: Folder, ways: Sequence[Point], settings: Settings, task: Task) -> Front:
    """The front of ways whose batches are all in the folder."""
    rows, spreads = [], []
    for way in ways:
        batches = folder.read_batches(way, settings.batches)
        features = torch.cat([own.features for own in batches])
        spread = frechet(features, task.judge.feature_mean.cpu(), task.judge.feature_covariance.cpu())
        spreads.append(spread)
        predicted, labels = (torch.cat([getattr(own, name) for own in batches]) for name in ("predicted", "labels"))
        rows.append(
            FrontRow(
                way.spec,
                family_of(way),
                way.steps or settings.steps,
                spread.interval,
                (spread - spreads[0]).interval,
                label_accuracy(predicted, labels),
                statistics.mean(own.flops_ratio for own in batches),
                sum(own.seconds for own in batches) / len(features),
            )
        )
    return Front(folder.identity, settings.images, tuple(rows), differences(ways, spreads), task.references())

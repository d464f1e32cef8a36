"""What an evaluation finds: a row for each point."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..models import Judge
from ..tuning.intervals import Interval, Spread
from .folder import Batch, Drift, Folder
from .metrics import Manifold, frechet, label_accuracy, precision_and_recall
from .points import Point
from .settings import Settings


@dataclass(frozen=True)
class DriftRow:
    """Teacher-forced drift of a point.

    Attributes:
        policy: the point's word. fraction: the share that its policy refreshes in a step, where that is one number.
        flops_ratio: of the transformer, over the exact model's in the evaluation's number of steps.
        drift: mean over decoding steps.
    """

    policy: str
    fraction: float | None
    steps: int
    cfg: float
    flops_ratio: float
    drift: float
    drift_by_step: tuple[float, ...]


@dataclass(frozen=True)
class Row:
    """Quality of a point.

    Attributes:
        policy: the point's word.
        flops_ratio: of the transformer, over the exact model's in the evaluation's number of steps.
        frechet, frechet_low, frechet_high: see `metrics.frechet`; a 95% interval.
        precision, recall: see `precision_and_recall`.
        drift, drift_by_step: teacher-forced, over the exact model in as many steps.
        seconds_ratio: wall time over that of ``exact``, transformer and diffusion head, median over the batches that
            one process generated of both; None where there are none. transformer_seconds_ratio: without the head.
    """

    policy: str
    images: int
    flops_ratio: float
    frechet: float
    frechet_low: float
    frechet_high: float
    label_accuracy: float
    precision: float
    recall: float
    drift: float
    drift_by_step: tuple[float, ...]
    seconds_ratio: float | None
    transformer_seconds_ratio: float | None


@dataclass(frozen=True)
class Evaluation:
    """Rows of an evaluation, in the order of its points, and the settings that they share.

    Attributes:
        exact_interval: of the Frechet distances of ``exact``, ``exact#2``, ...: the lowest low and the highest high of
            the sets that were evaluated. Other seeds alone give such differences.
        differences: of the Frechet distances of two points on the same seeds, ``differences[one][other]`` of one less
            that of the other.
    """

    settings: dict[str, Any]
    points: tuple[Point, ...]
    rows: tuple[Row, ...]
    differences: dict[str, dict[str, Interval]]

    @property
    def exact_interval(self) -> tuple[float, float] | None:
        exact = [row for point, row in zip(self.points, self.rows) if point.is_exact]
        if not exact:
            return None
        return min(row.frechet_low for row in exact), max(row.frechet_high for row in exact)

    def to_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings,
            "exact_interval": self.exact_interval,
            "rows": [asdict(row) for row in self.rows],
            "differences": {
                one: {other: asdict(interval) for other, interval in others.items()}
                for one, others in self.differences.items()
            },
        }


def differences(points: Sequence[Point], distances: Sequence[Spread]) -> dict[str, dict[str, Interval]]:
    """What `Evaluation.differences` holds, of points and their Frechet distances."""
    known = list(zip(points, distances, strict=True))
    return {
        one.spec: {
            other.spec: (own - reference).interval
            for other, reference in known
            if other.seeds == one.seeds and other is not one
        }
        for one, own in known
    }


def drift_row(point: Point, drift: Drift, steps: int, cfg: float, steps_ratio: float) -> DriftRow:
    """``steps_ratio``: FLOPs of the exact model in the point's number of steps over those in the evaluation's."""
    flops = drift.flops_ratio * steps_ratio
    return DriftRow(point.spec, point.fraction, point.steps or steps, cfg, flops, drift.mean, drift.by_step)


def quality_row(
    point: Point,
    folder: Folder,
    settings: Settings,
    judge: Judge,
    real: Manifold,
    steps_ratio: float,
    exact: Sequence[Batch],
) -> tuple[Row, Spread]:
    """The row of a point whose batches are all in the folder, and its Frechet distance.

    Args:
        real: of real images. exact: the batches of ``exact``, none if it was not evaluated.
    """
    batches = folder.read_batches(point, settings.batches)
    features = torch.cat([batch.features for batch in batches])
    spread = frechet(features, judge.feature_mean.cpu(), judge.feature_covariance.cpu())
    distance = spread.interval
    precision, recall = precision_and_recall(real, Manifold.of(features))
    drift = folder.read_drift(point)
    row = Row(
        policy=point.spec,
        images=len(features),
        flops_ratio=statistics.mean(batch.flops_ratio for batch in batches) * steps_ratio,
        frechet=distance.estimate,
        frechet_low=distance.low,
        frechet_high=distance.high,
        label_accuracy=label_accuracy(
            torch.cat([batch.predicted for batch in batches]), torch.cat([batch.labels for batch in batches])
        ),
        precision=precision,
        recall=recall,
        drift=drift.mean,
        drift_by_step=drift.by_step,
        seconds_ratio=time_ratio((own.seconds, other.seconds) for own, other in of_one_run(batches, exact)),
        transformer_seconds_ratio=time_ratio(
            (own.seconds - own.head_seconds, other.seconds - other.head_seconds)
            for own, other in of_one_run(batches, exact)
        ),
    )
    return row, spread


def of_one_run(batches: Sequence[Batch], exact: Sequence[Batch]) -> list[tuple[Batch, Batch]]:
    """Batches of the same number that one process generated, one after the other."""
    return [(own, other) for own, other in zip(batches, exact) if own.run == other.run]


def time_ratio(seconds: Iterable[tuple[float, float]]) -> float | None:
    ratios = [own / other for own, other in seconds]
    return statistics.median(ratios) if ratios else None

"""Teacher-forced drift of points: exact steps recorded once, replayed under each point's policy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from torch import nn

from ..models import MAR
from ..models.generation import Sampling, sample
from ..tuning.replay import Recording, record, replay
from .draws import drift_draws, settings_for
from .folder import Drift, Folder
from .points import Point
from .progress import progress
from .settings import DriftSettings


def measure_missing_drift(
    folder: Folder, points: Sequence[Point], settings: DriftSettings, model: MAR, console: Console
) -> None:
    """Measure the drift of every point of which the folder holds none.

    A point is compared with exact steps of its own number of steps, so the exact model has none at any.
    """
    todo = [point for point in points if not folder.has_drift(point)]
    recordings: dict[tuple[int, int, str], Recording] = {}
    transformed: dict[Any, nn.Module] = {}
    with progress(console, "drift", len(points), len(points) - len(todo)) as steps:
        for point in todo:
            steps.begin(point.spec)
            began = time.perf_counter()
            count = point.steps or settings.steps
            policies = point.policies_in(count)
            if policies is None:
                drift = Drift((0.0,) * count, 1.0)
            else:
                own = settings_for(point, settings)
                key = point.seeds, count, own.order
                if key not in recordings:
                    recordings[key] = record_exact(model, own, point.seeds, count, transformed)
                found = replay(recordings[key], policies)
                drift = Drift(found.drift_by_step, found.flops_ratio)
            folder.write_drift(point, drift)
            steps.end(point.spec, time.perf_counter() - began)


def record_exact(
    model: MAR, settings: DriftSettings, seeds: int, count: int, transformed: dict[Any, nn.Module]
) -> Recording:
    """An exact generation in ``count`` steps with the draws of a set of seeds; ``transformed`` as in `record`."""
    draws, sampling = drift_draws(model, settings, seeds), Sampling(count, settings.cfg, settings.temperature)
    return record(model, lambda given: sample(given, draws, sampling), candidates=transformed)

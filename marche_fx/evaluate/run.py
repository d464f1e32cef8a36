"""Evaluate points: images and drift, tables, pictures and JSON in one folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from ..errors import ArgumentError
from ..models import MAR, Judge, load_judge
from ..models.bundled import WEIGHTS
from ..models.judge import FEATURES_FILE, load_features
from ..reporting.tables import WIDTH
from ..saving.files import write_json
from ..saving.locks import alone
from .drift import measure_missing_drift
from .equal_flops import drift_over_others
from .folder import Folder
from .generation import generate_missing
from .metrics import Manifold
from .plots import save_drift_by_flops, save_drift_by_step, save_images, save_quality
from .points import Point
from .rows import DriftRow, Evaluation, differences, drift_row, quality_row
from .settings import DriftSettings, Settings, identity
from .steps import steps_ratios
from .tables import drift_table, equal_flops_table, quality_table
from .tasks import Task


@alone("evaluating")
def evaluate(
    model: MAR,
    points: Sequence[Point],
    out: Path,
    settings: Settings,
    *,
    console: Console | None = None,
) -> Evaluation:
    """Generate and judge images of all points; goes on where an interrupted evaluation in ``out`` stopped.

    ``out`` gets ``evaluation.json``, ``quality.png``, ``drift.png``, ``images.png``, and a folder of results for each
    point, which another evaluation there with these settings takes over.

    Raises:
        ArgumentError: there are no points, or ``out`` cannot be written, is in use by another process, or holds
            results of other settings, weights or another version.
    """
    console, judge = console or wide_console(), load_judge().to(model.mask_token.device)
    folder = open_folder(out, points, settings, model=model, judge=judge)
    generate_missing(folder, points, settings, Task(model, judge), console)
    measure_missing_drift(folder, points, settings, model, console)

    with console.status("Measuring ..."):
        real = Manifold.of(load_features(WEIGHTS / FEATURES_FILE))
        ratios = ratios_of(model, points, settings)
        exact = next((point for point in points if point.is_exact and point.seeds == 1), None)
        others = [] if exact is None else folder.read_batches(exact, settings.batches)
        found = [
            quality_row(point, folder, settings, judge, real, ratios[point.steps or settings.steps], others)
            for point in points
        ]
    rows, distances = zip(*found)
    evaluation = Evaluation(folder.identity, tuple(points), rows, differences(points, distances))
    write_json(out / "evaluation.json", evaluation.to_dict())
    save_quality(evaluation, out / "quality.png")
    save_drift_by_step(points, [row.drift_by_step for row in rows], out / "drift.png")
    shown = [folder.read_batch(point, 0).images for point in points]
    save_images([point.label for point in points], shown, out / "images.png")
    console.print(quality_table(evaluation))
    console.print(f"{out}: evaluation.json, quality.png, drift.png, images.png")
    return evaluation


@alone("measuring drift")
def evaluate_drift(
    model: MAR, points: Sequence[Point], out: Path, settings: DriftSettings, *, console: Console | None = None
) -> list[DriftRow]:
    """Measure the drift of all points on the steps of one exact generation for each set of seeds.

    ``out`` gets ``drift.json``, which also compares the points at equal FLOPs, ``drift.png`` and a folder for each
    point. Raises as `evaluate` does.
    """
    console = console or wide_console()
    folder = open_folder(out, points, settings, model=model)
    measure_missing_drift(folder, points, settings, model, console)
    ratios = ratios_of(model, points, settings)
    rows = [
        drift_row(point, folder.read_drift(point), settings.steps, settings.cfg, ratios[point.steps or settings.steps])
        for point in points
    ]
    ratios_to_others = drift_over_others(points, rows)
    found = {"settings": folder.identity, "rows": [asdict(row) for row in rows], "drift_over_others": ratios_to_others}
    write_json(out / "drift.json", found)
    save_drift_by_flops(points, rows, out / "drift.png")
    console.print(drift_table(rows))
    if any(value is not None for ratios in ratios_to_others.values() for value in ratios.values()):
        console.print(equal_flops_table(ratios_to_others))
    console.print(f"{out}: drift.json, drift.png")
    return rows


def wide_console() -> Console:
    """A console on which tables are not broken where no terminal says how wide it is."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def open_folder(out: Path, points: Sequence[Point], settings: DriftSettings, **models: MAR | Judge) -> Folder:
    if not points:
        raise ArgumentError("there is no policy to evaluate")
    folder = Folder(out, identity(settings, **models))
    for point in points:
        folder.claim(point)
    return folder


def ratios_of(model: MAR, points: Sequence[Point], settings: DriftSettings) -> dict[int, float]:
    return steps_ratios(model, {point.steps or settings.steps for point in points}, settings.steps)

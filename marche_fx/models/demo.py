"""The demo: garments generated twice from the same seeds, exactly and with cached tokens, side by side."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ..api.transform import transform
from ..errors import ArgumentError
from ..refresh import FullRefresh, RefreshPolicy, SelectiveRefresh
from ..reporting.picture import check_picture
from . import CLASSES, MAR, Judge, load_fashion_mar, load_judge
from .drift import teacher_forced_drift
from .generation import Draws, Generation, Sampling, draw, generate


def run_demo(
    out: Path,
    *,
    mar: MAR | None = None,
    per_class: int = 4,
    steps: int = 32,
    cfg: float = 3.0,
    temperature: float = 0.8,
    seed: int = 0,
    refresh: RefreshPolicy | None = None,
    compile: bool = False,
    console: Console | None = None,
) -> None:
    """Generate with ``mar``, the bundled one when omitted; compare, print tables and write the picture to ``out``.

    Raises:
        ArgumentError: there is nothing to generate, no folder to write the picture to, or its name has another ending.
    """
    if per_class < 1:
        raise ArgumentError(f"at least one image of each class is needed, got {per_class}")
    check_picture(out)
    console = console or Console()
    mar, judge = mar or load_fashion_mar(), load_judge()
    labels = torch.arange(len(CLASSES)).repeat(per_class)
    draws = draw(mar, labels, torch.Generator().manual_seed(seed))
    policy = SelectiveRefresh() if refresh is None else refresh
    optimized = transform(mar, refresh=policy, compile=compile)
    sampling = Sampling(steps, cfg, temperature)
    setting = f"{len(draws.labels)} images, {steps} steps, guidance {cfg:g}, temperature {temperature:g}"

    console.print("Full refresh against the original, 10 images, 4 steps ...")
    few = draws.first(len(CLASSES))
    full = transform(mar, refresh=FullRefresh(), compile=compile)
    original, same = (generate(model, few, Sampling(4, cfg, temperature), progress=False) for model in (mar, full))
    difference = float((original.images - same.images).abs().max())
    console.print(f"  largest difference of a pixel (-1..1): {difference:.1e}")

    with console.status("Capturing both steps and checking them against the original once ..."):
        generate(optimized, draws, Sampling(2, cfg, temperature), progress=False)
    console.print(f"{setting}: exact ...")
    exact = generate(mar, draws, sampling)
    console.print(f"{setting}: cached ...")
    cached = generate(optimized, draws, sampling)
    console.print("Drift: exact and cached steps on the same tokens ...")
    drifts = teacher_forced_drift(mar, optimized, exact.images[: len(few.labels)], few.orders, few.labels, steps, cfg)

    console.print(timing_table(exact, cached))
    console.print(quality_table(exact, cached, draws, judge))
    console.print(
        f"Full refresh differs from the original by at most {difference:.1e}. At partial refresh the vectors that are "
        f"read drift by {sum(drifts) / len(drifts):.3f} of their norm on average, {max(drifts):.3f} at most."
    )
    save_picture(out, exact.images, cached.images, per_class)
    console.print(f"Picture: {out.resolve()}")


def timing_table(exact: Generation, cached: Generation) -> Table:
    assert cached.session is not None
    table = Table("part", "exact s", "cached s", "ratio", "rows computed", "FLOPs ratio", title="Time on this machine")
    session = cached.session
    parts = (
        ("transformer", exact.transformer_seconds, cached.transformer_seconds, session.rows_ratio, session.flops_ratio),
        ("diffusion head", exact.head_seconds, cached.head_seconds, 1.0, 1.0),
    )
    for name, before, after, rows, flops in parts:
        table.add_row(name, f"{before:.1f}", f"{after:.1f}", f"{before / after:.2f}x", f"{rows:.1%}", f"{flops:.3f}")
    ratio = exact.seconds / cached.seconds
    table.add_row("whole", f"{exact.seconds:.1f}", f"{cached.seconds:.1f}", f"{ratio:.2f}x", "", "")
    return table


def quality_table(exact: Generation, cached: Generation, draws: Draws, judge: Judge) -> Table:
    table = Table("", "exact", "cached", title="Quality")
    runs = (exact, cached)
    table.add_row("images that show their label", *(f"{judge.accuracy(run.images, draws.labels):.1%}" for run in runs))
    difference = (exact.images - cached.images).abs().mean()
    table.add_row("mean difference of a pixel (-1..1)", "0", f"{float(difference):.3f}")
    return table


def save_picture(path: Path, exact: Tensor, cached: Tensor, per_class: int) -> None:
    """One column a class, exact rows above cached ones; images ``[per_class * 10, 1, 28, 28]``, classes in turn."""
    figure = Figure(figsize=(10, 2.2 * per_class + 0.8), layout="constrained")
    halves = figure.subfigures(2, 1, squeeze=False)[:, 0]
    for half, images, title in zip(halves, (exact, cached), ("exact", "cached"), strict=True):
        half.suptitle(title)
        axes = half.subplots(per_class, len(CLASSES), squeeze=False)
        for number, image in enumerate(images):
            row, column = divmod(number, len(CLASSES))
            cell = axes[row][column]
            cell.imshow(-image[0].cpu().numpy(), cmap="gray", vmin=-1, vmax=1)
            cell.set_axis_off()
            if row == 0:
                cell.set_title(CLASSES[column], fontsize=9)
    figure.savefig(path, dpi=110)

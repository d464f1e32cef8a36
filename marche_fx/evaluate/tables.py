"""The tables that an evaluation prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .points import EXACT
from .rows import DriftRow, Evaluation, Row


def quality_table(evaluation: Evaluation) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", overflow="fold")
    for heading in (
        "FLOPs\nratio",
        "Frechet\ndistance",
        "95%\ninterval",
        "over exact,\n95% interval",
        "label\naccuracy",
        "precision\n",
        "recall\n",
        "drift\n",
        "seconds\nratio",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in evaluation.rows:
        table.add_row(
            row.policy,
            f"{row.flops_ratio:.3f}",
            f"{row.frechet:.3f}",
            f"{row.frechet_low:.3f} .. {row.frechet_high:.3f}",
            over_exact(evaluation, row),
            f"{row.label_accuracy:.3f}",
            f"{row.precision:.3f}",
            f"{row.recall:.3f}",
            f"{row.drift:.4f}",
            "" if row.seconds_ratio is None else f"{row.seconds_ratio:.3f}",
        )
    if evaluation.exact_interval is not None:
        low, high = evaluation.exact_interval
        sets = sum(point.is_exact for point in evaluation.points)
        table.caption = f"exact over {sets} set{'s' * (sets > 1)} of seeds: {low:.3f} .. {high:.3f}"
    return table


def over_exact(evaluation: Evaluation, row: Row) -> str:
    """By how much the Frechet distance of a row is above that of ``exact`` on the same seeds."""
    difference = evaluation.differences[row.policy].get(EXACT)
    return "" if difference is None else f"{difference.low:+.3f} .. {difference.high:+.3f}"


def drift_table(rows: Sequence[DriftRow]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy", overflow="fold")
    for heading in ("steps", "FLOPs ratio", "drift", "highest of a step"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        highest = f"{max(row.drift_by_step):.4f}"
        table.add_row(row.policy, str(row.steps), f"{row.flops_ratio:.3f}", f"{row.drift:.4f}", highest)
    return table


def equal_flops_table(drift_over_others: Mapping[str, Mapping[str, float | None]]) -> Table:
    """What `equal_flops.drift_over_others` found, a column for each kind of policy."""
    title = "drift over that of another policy at equal FLOPs; below 1 is better"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left")
    table.add_column("policy", overflow="fold")
    kinds = list(dict.fromkeys(kind for ratios in drift_over_others.values() for kind in ratios))
    for kind in kinds:
        table.add_column(kind, justify="right", no_wrap=True)
    for policy, ratios in drift_over_others.items():
        found = [ratios.get(kind) for kind in kinds]
        table.add_row(policy, *("" if ratio is None else f"{ratio:.2f}" for ratio in found))
    return table

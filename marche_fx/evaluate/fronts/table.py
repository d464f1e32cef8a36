"""The table of a front."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ...tuning.intervals import Interval
from .front import Front


def front_table(front: Front) -> Table:
    """A row for each way; costs over the first way's."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"{front.images} images a way", title_justify="left")
    table.add_column("way", overflow="fold")
    headings = ("time", "FLOPs", "Frechet\ndistance", f"over\n{front.rows[0].way}", "label\naccuracy")
    for heading in (*headings, "over the best recipe\nthat costs no more"):
        table.add_column(heading, justify="right", no_wrap=True)
    over_recipes, first = front.over_recipes(), front.rows[0].flops
    for row in front.rows:
        flops = "" if row.flops is None or first is None else f"{row.flops / first:.3f}"
        recipe = over_recipes.get(row.way)
        table.add_row(
            row.way,
            "" if row.time_ratio is None else f"{row.time_ratio:.3f}",
            flops,
            spoken(row.frechet),
            spoken(row.over_first, "+"),
            f"{row.label_accuracy:.1%}",
            "" if recipe is None else f"{spoken(recipe[1], '+')}\n{recipe[0]}",
        )
    return table


def spoken(own: Interval, sign: str = "") -> str:
    return f"{own.estimate:{sign}.2f} ({own.low:{sign}.2f} to {own.high:{sign}.2f})"

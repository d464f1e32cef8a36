"""The tables that studies print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .figures import StudyRow


def headings(tokens: str, *others: str) -> tuple[str, ...]:
    """Those of `shared_cells`, with the word for what is decoded, and of what a study has beside."""
    return (f"same {tokens},\n95%", "rows\n", "logits\n", "FLOPs\n", "time\n", *others)


def study_table(title: str, headings: Sequence[str], lines: Mapping[str, Sequence[str]]) -> Table:
    """A line of cells for each variant of a loop."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0, title=title, title_justify="left")
    table.add_column("variant", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for variant, cells in lines.items():
        table.add_row(variant, *cells)
    return table


def shared_cells(row: StudyRow) -> list[str]:
    """Same tokens, rows, logits, FLOPs, time."""
    same = row.same
    return [
        f"{same.estimate:.1%} ({100 * same.low:.0f}-{same.high:.0%})",
        f"{row.rows:.1%}",
        f"{row.results:.1%}",
        f"{row.flops:.1%}",
        "" if row.seconds_ratio is None else f"{row.seconds_ratio:.2f}",
    ]

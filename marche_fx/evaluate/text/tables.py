"""The tables that the study prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from .figures import TextRow

HEADINGS = (
    "same pieces,\n95%",
    "rows\n",
    "logits\n",
    "FLOPs\n",
    "time\n",
    "perplexity\n",
    "over the\noriginal's, 95%",
    "bits per\nbyte",
    "distinct\n",
)


def text_table(rows: Sequence[TextRow]) -> Table:
    """A line for each variant of a loop."""
    title = f"{rows[0].loop}: {rows[0].prompts} prompts"
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=0, title=title, title_justify="left")
    table.add_column("variant", no_wrap=True)
    for heading in HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.variant, *cells(row))
    return table


def cells(row: TextRow) -> list[str]:
    """The figures of a row, one for each of `HEADINGS`."""
    same, over = row.same, row.perplexity_over_original
    return [
        f"{same.estimate:.1%} ({100 * same.low:.0f}-{same.high:.0%})",
        f"{row.rows:.1%}",
        f"{row.results:.1%}",
        f"{row.flops:.1%}",
        "" if row.seconds_ratio is None else f"{row.seconds_ratio:.2f}",
        f"{row.perplexity:.2f}",
        f"{over.estimate:.2f} ({over.low:.2f}-{over.high:.2f})",
        "" if row.bits_per_byte is None else f"{row.bits_per_byte:.2f}",
        f"{row.distinct:.2f}",
    ]

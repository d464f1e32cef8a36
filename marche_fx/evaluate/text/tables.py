"""The tables that the study of text prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ..study.tables import headings, shared_cells, study_table
from .figures import TextRow

HEADINGS = headings(
    "pieces",
    "perplexity\n",
    "over the\noriginal's, 95%",
    "bits per\nbyte",
    "distinct\n",
)


def text_table(rows: Sequence[TextRow]) -> Table:
    """A line for each variant of a loop."""
    lines = {row.variant: cells(row) for row in rows}
    return study_table(f"{rows[0].loop}: {rows[0].prompts} prompts", HEADINGS, lines)


def cells(row: TextRow) -> list[str]:
    """The figures of a row, one for each of `HEADINGS`."""
    over = row.perplexity_over_original
    return [
        *shared_cells(row),
        f"{row.perplexity:.2f}",
        f"{over.estimate:.2f} ({over.low:.2f}-{over.high:.2f})",
        "" if row.bits_per_byte is None else f"{row.bits_per_byte:.2f}",
        f"{row.distinct:.2f}",
    ]

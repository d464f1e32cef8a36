"""The tables that the study of garments prints."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from ..study.tables import headings, shared_cells, study_table
from .figures import TokenRow

HEADINGS = headings(
    "codes",
    "labels right,\n95%",
    "Frechet\ndistance, 95%",
    "over the\noriginal's, 95%",
)


def token_table(rows: Sequence[TokenRow]) -> Table:
    """A line for each variant of a loop."""
    lines = {row.variant: cells(row) for row in rows}
    return study_table(f"{rows[0].loop}: {rows[0].images} images", HEADINGS, lines)


def cells(row: TokenRow) -> list[str]:
    """The figures of a row, one for each of `HEADINGS`."""
    labels, over = row.labels, row.frechet_over_original
    return [
        *shared_cells(row),
        f"{labels.estimate:.0%} ({100 * labels.low:.0f}-{labels.high:.0%})",
        f"{row.frechet.estimate:.2f} ({row.frechet.low:.1f}-{row.frechet.high:.1f})",
        f"{over.estimate:+.2f} ({over.low:+.2f}, {over.high:+.2f})",
    ]

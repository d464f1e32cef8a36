"""docs/denoising.md: its programs run, and its table is what its JSON holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.pages import ran_blocks

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "denoising.md").read_text(encoding="utf-8")


def line(row: dict[str, Any]) -> str:
    error = row["energy_distance_error"]
    cells = [
        f"`{row['denoising']}`",
        f"{row['temperature']:g}",
        f"{row['energy_distance']:+.3f} ± {error:.3f}",
        f"{row['spread']:.3f} ± {row['spread_error']:.3f}",
        f"{row['shift']:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def test_the_table_is_what_was_measured() -> None:
    rows = json.loads((DOCS / "denoising" / "distances.json").read_text())["rows"]
    assert "\n".join(map(line, rows)) in PAGE


def test_the_programs_of_the_page_run() -> None:
    assert len(list(ran_blocks("docs/denoising.md"))) == 2

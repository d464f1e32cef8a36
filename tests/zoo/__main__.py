"""A row for each entry; ``python -m tests.zoo`` of all, ``python -m tests.zoo BERT`` of those with that name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from . import ENTRIES
from .captured import apart, captured, full_operators, is_claimed
from .entry import Entry
from .errors import error_at_full_refresh, errors_against_oracle


def row(entry: Entry) -> list[str]:
    own = captured(entry, 3, entry.tokens[0])
    report = own.report
    sites = [site for site in report.sites if not apart(entry, site)]
    attention = sum(site.kind == "attention" for site in sites)
    return [
        str(report.nodes),
        f"{attention}/{entry.attention}",
        f"{len(sites) - attention}/{entry.mlps}",
        str(sum(map(is_claimed, sites))),
        " ".join(sorted(full_operators(report))),
        f"{1 / report.saving(0.1):.2f}",
        f"{error_at_full_refresh(own):.0e}",
        f"{errors_against_oracle(own)[0]:.0e}",
        f"{own.seconds:.1f}",
    ]


def main(names: Sequence[str]) -> None:
    headings = ("operators", "attention", "MLPs", "claimed", "in full", "FLOPs at 10%", "error, full", "error, oracle")
    table, failures = Table("model", *headings, "capture, s"), []
    for entry in ENTRIES:
        if not names or any(name in entry.name for name in names):
            try:
                table.add_row(entry.name, *row(entry))
            except Exception as error:
                failures.append(f"{entry.name}: {type(error).__name__}: {error}")
    console = Console(width=160)
    console.print(table)
    for failure in failures:
        console.print(failure, markup=False, highlight=False)


if __name__ == "__main__":
    main(sys.argv[1:])

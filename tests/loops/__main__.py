"""A row for each loop: ``python -m tests.loops``, or of those with a name, ``python -m tests.loops guidance``."""

from __future__ import annotations

import sys

import torch
from rich.console import Console
from rich.table import Table

from tests.loops.loops import ENTRIES
from tests.loops.table import decode


def main() -> None:
    torch.set_num_threads(1)
    table = Table("loop", "passed", "rows", "oldest read", "drift", "the user is told")
    for entry in ENTRIES:
        if len(sys.argv) < 2 or any(name in entry.name for name in sys.argv[1:]):
            row = decode(entry)
            told = "; ".join(own.split(". ")[0][:110] for own in row.told)
            passed = ", ".join(entry.options) or "nothing"
            table.add_row(entry.name, passed, f"{row.rows:.0%}", str(row.oldest), f"{row.drift:.3f}", told)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()

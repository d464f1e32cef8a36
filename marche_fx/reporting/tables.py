"""The tables of a report, at most `WIDTH` columns wide, and how it writes numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from .site_report import FullOperator, SiteReport

WIDTH = 120
UNBOUNDED = 100_000


def as_text(renderable: RenderableType, width: int | None = WIDTH) -> str:
    """What is printed in so many columns, or in as many as there is something for."""
    console = Console(record=True, width=width or UNBOUNDED, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def add_row(table: Table, *cells: RenderableType) -> None:
    """A row whose texts are shown as they are: names may hold what rich takes for markup."""
    table.add_row(*(Text(visible(own)) if isinstance(own, str) else own for own in cells))


def visible(text: str) -> str:
    """Text with what a terminal or a browser would obey, and nobody sees, written out: ``\\x1b``."""
    if text.isprintable():
        return text
    return "".join(own if own.isprintable() or own in "\n\t" else repr(own)[1:-1] for own in text)


def site_table(sites: Sequence[SiteReport], fraction: float) -> Table:
    """A row for every site, its module above its source line."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("site")
    table.add_column("module\nsource", overflow="fold")
    table.add_column("claimed", max_width=42)
    for heading in ("rows\nof", "FLOPs\nof", "caches\n"):
        table.add_column(heading.replace("of", f"at {fraction:.0%}"), justify="right")
    for site in sites:
        add_row(
            table,
            f"{site.kind}\n{site.size}",
            "\n".join(filter(None, (site.path, site.line))),
            Text(("yes: " if site.claimed else "no: ") + site.status, "" if site.claimed else "yellow"),
            f"{joined(site.rows)}\n{joined(site.active_rows)}",
            f"{short(site.flops)}\n{short(site.active_flops)}",
            memory(site.cache_bytes) if site.cache_bytes else "",
        )
    return table


def full_table(operators: Sequence[FullOperator], active_flops: float, fraction: float) -> Table:
    """A row for every operator that runs on all tokens, with what it costs."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("runs on all tokens", overflow="fold")
    table.add_column("module\nsource", overflow="fold")
    table.add_column("because it", max_width=50, overflow="fold")
    table.add_column(f"of FLOPs\nat {fraction:.0%}", justify="right")
    table.add_column("caches\n", justify="right")
    for own in operators:
        add_row(
            table,
            Text(own.operator, "yellow"),
            "\n".join(filter(None, (own.path, own.line))),
            own.reason,
            f"{own.share:.1%}\n{own.flops / max(active_flops, 1):.1%}",
            memory(own.cache_bytes) if own.cache_bytes else "",
        )
    return table


def place(name: str, path: str, line: str) -> str:
    """``aten.linear at blocks.0.mlp.fc1 (model.py:41)``."""
    return name + (f" at {path}" if path else "") + (f" ({line})" if line else "")


def joined(counts: Sequence[int]) -> str:
    """A number for each stream of tokens."""
    return " + ".join(f"{count:,}" for count in counts)


def short(number: float) -> str:
    """``12.3 M``; ends in a space or in the letter that stands for thousands, millions, ..."""
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} P"


def memory(size: float) -> str:
    """``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"

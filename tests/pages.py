"""What the pages on studies are read for: tables, figures in their prose, variants in their commands."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def line(*words: str) -> str:
    return f"| {' | '.join(words)} |"


def table_lines(headings: Sequence[str], cells: Mapping[str, Sequence[str]]) -> list[str]:
    """The lines of a table, as a page has it: the cells of each variant below headings."""
    heads = ("variant", *(" ".join(heading.split()) for heading in headings))
    return [line(*heads), line(*["---"] * len(heads)), *(line(f"`{name}`", *own) for name, own in cells.items())]


def shares_in_prose(page: str) -> set[str]:
    """Percentages with a decimal outside of tables."""
    return set(re.findall(r"\d+\.\d%", "\n".join(own for own in page.splitlines() if not own.startswith("|"))))


def variants_in_commands(page: str) -> set[str]:
    commands = page.partition("```sh\n")[2].partition("```")[0]
    return {name.strip('"') for name in re.findall(r'--variant ("[^"]+"|[^\s)]+)', commands)}

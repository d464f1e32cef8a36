"""What the pages on studies are read for: tables, figures in their prose, variants in their commands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from marche_fx.evaluate.study.figures import StudyRow

DOCS = Path(__file__).parents[1] / "docs"

Row = TypeVar("Row", bound=StudyRow)


@dataclass(frozen=True)
class Study(Generic[Row]):
    """What a study found, which lies beside its page, ``docs/{name}/{loop}.json``.

    Attributes:
        kind: of its rows.
    """

    name: str
    kind: type[Row]

    @property
    def page(self) -> str:
        return (DOCS / f"{self.name}.md").read_text(encoding="utf-8")

    def found(self, loop: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((DOCS / self.name / f"{loop}.json").read_text())
        return content

    def rows_of(self, loop: str) -> list[Row]:
        return [self.kind.from_dict(row) for row in self.found(loop)["rows"]]


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

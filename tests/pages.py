"""What pages are read for: programs; and in those on studies tables, figures in their prose, variants in commands."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from marche_fx.evaluate.study.figures import StudyRow

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

Names = dict[str, Any]

Row = TypeVar("Row", bound=StudyRow)


def blocks_of(page: str) -> list[str]:
    """The blocks of Python of a page, whose path is from the root."""
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def is_offline(block: str) -> bool:
    """Whether a block loads no weights from elsewhere."""
    return "from_pretrained(" not in block


def ran_blocks(page: str) -> Iterator[Names]:
    """Run the blocks of a page one after another, with warnings as errors: the names after each.

    Those that load weights from elsewhere are compiled, and not run.
    """
    names: Names = {"__name__": "__main__"}
    for number, block in enumerate(blocks_of(page)):
        code = compile(block, f"{page}, block {number}", "exec")
        if is_offline(block):
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                exec(code, names)
        yield names


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

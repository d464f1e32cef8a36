"""docs/text.md: its tables and the figures of its prose are what its JSON holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marche_fx.evaluate.text import LOOPS, VARIANTS, TextRow
from marche_fx.evaluate.text.tables import HEADINGS, cells
from tests.pages import shares_in_prose, table_lines, variants_in_commands

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "text.md").read_text(encoding="utf-8")


def found(loop: str) -> dict[str, Any]:
    return json.loads((DOCS / "text" / f"{loop}.json").read_text())


def rows_of(loop: str) -> list[TextRow]:
    return [TextRow.from_dict(row) for row in found(loop)["rows"]]


@pytest.mark.parametrize("loop", LOOPS)
def test_the_page_has_the_figures_and_the_picture_of_each_loop(loop: str) -> None:
    section = PAGE.partition(f"<!-- {loop} -->\n")[2].partition("\n## ")[0]
    assert "\n".join(table_lines(HEADINGS, {row.variant: cells(row) for row in rows_of(loop)})) in section
    assert f"(text/{loop}.png)" in section
    assert f"(text/{loop}.json)" in section
    assert f"{len(rows_of(loop))} variants, {rows_of(loop)[0].prompts} prompts" in section


@pytest.mark.parametrize("loop", LOOPS)
def test_the_results_are_of_the_variants_and_on_prompts_that_nothing_was_chosen_by(loop: str) -> None:
    content = found(loop)
    assert not content["settings"]["choosing"]
    for row in rows_of(loop):
        variant = VARIANTS[row.variant]
        policy = None if variant.policy is None else variant.policy(LOOPS[loop])
        assert row.policy == repr(policy), row.variant


@pytest.mark.parametrize("loop", LOOPS)
def test_exact_answers_were_the_originals(loop: str) -> None:
    for row in rows_of(loop):
        if row.variant in ("original", "exact"):
            assert row.same.low == row.identical == row.rows == row.results == 1


def test_every_share_in_the_prose_is_in_the_results() -> None:
    known = {
        f"{value:.1%}"
        for loop in LOOPS
        for row in rows_of(loop)
        for value in (row.same.estimate, row.rows, row.results, row.flops, row.identical)
    }
    told = shares_in_prose(PAGE)
    assert told
    assert not told - known


def test_the_commands_name_every_variant_that_the_tables_have() -> None:
    shown = {row.variant for loop in LOOPS if loop != "low-confidence" for row in rows_of(loop)}
    assert variants_in_commands(PAGE) | {"original"} == shown
    assert {row.variant for row in rows_of("low-confidence")} == set(VARIANTS)

"""docs/text.md: its tables and the figures of its prose are what its JSON holds."""

from __future__ import annotations

import re
import shlex

import pytest

from marche_fx.evaluate.text import LOOPS, VARIANTS, TextRow
from marche_fx.evaluate.text.tables import HEADINGS, cells
from marche_fx.evaluate.text.variants import ORIGINAL
from tests.pages import Study, shares_in_prose, table_lines

STUDY = Study("text", TextRow)
PAGE, found, rows_of = STUDY.page, STUDY.found, STUDY.rows_of


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


def asked_for() -> dict[str, tuple[int, set[str]]]:
    """For each loop of the page's commands the prompts and the variants."""
    shell = PAGE.partition("```sh\n")[2].partition("```")[0].replace("\\\n", " ")
    for name, words in re.findall(r"^(\w+)=\(([^)]*)\)", shell, re.MULTILINE):
        shell = shell.replace(f'"${{{name}[@]}}"', " ".join(words.split("\n")))
    found = {}
    for command in re.findall(r"^study (--loop .*)", shell, re.MULTILINE):
        words = shlex.split(command)
        options = list(zip(words[::2], words[1::2], strict=True))
        variants = {value for option, value in options if option == "--variant"}
        found[dict(options)["--loop"]] = int(dict(options)["--prompts"]), variants
    return found


def test_the_commands_make_what_the_tables_have() -> None:
    shown = {loop: rows_of(loop) for loop in LOOPS}
    assert asked_for() == {
        loop: (rows[0].prompts, {row.variant for row in rows} - {ORIGINAL}) for loop, rows in shown.items()
    }

"""docs/tokens.md: its tables and the figures of its prose are what its JSON holds."""

from __future__ import annotations

import pytest

from marche_fx.evaluate.tokens import LOOPS, VARIANTS, TokenRow
from marche_fx.evaluate.tokens.tables import HEADINGS, cells
from marche_fx.models.bundled import load_garment_tokens
from marche_fx.saving.files import weights_hash
from tests.pages import Study, shares_in_prose, table_lines, variants_in_commands

STUDY = Study("tokens", TokenRow)
PAGE, found, rows_of = STUDY.page, STUDY.found, STUDY.rows_of


@pytest.mark.parametrize("loop", LOOPS)
def test_the_page_has_the_figures_and_the_pictures_of_each_loop(loop: str) -> None:
    section = PAGE.partition(f"<!-- {loop} -->\n")[2].partition("\n## ")[0]
    rows = rows_of(loop)
    assert "\n".join(table_lines(HEADINGS, {row.variant: cells(row) for row in rows})) in section
    for name in (f"{loop}.png", f"{loop}.json"):
        assert f"(tokens/{name})" in section
    assert f"{len(rows)} variants, {rows[0].images} images" in section


@pytest.mark.parametrize("loop", LOOPS)
def test_the_results_are_of_the_bundled_model_and_of_the_variants_as_they_are(loop: str) -> None:
    assert found(loop)["settings"]["garments"] == weights_hash(load_garment_tokens())
    for row in rows_of(loop):
        policy = VARIANTS[row.variant].policy
        assert row.policy == repr(None if policy is None else policy(LOOPS[loop])), row.variant


@pytest.mark.parametrize("loop", LOOPS)
def test_exact_codes_were_the_originals(loop: str) -> None:
    for row in rows_of(loop):
        if row.variant in ("original", "exact"):
            assert row.same.low == row.identical == row.rows == row.results == 1


def test_every_share_in_the_prose_is_in_the_results() -> None:
    known = {
        f"{value:.1%}"
        for loop in LOOPS
        for row in rows_of(loop)
        for value in (row.same.estimate, row.rows, row.results, row.flops, row.labels.estimate)
    }
    told = shares_in_prose(PAGE)
    assert told
    assert not told - known


def test_the_commands_name_every_variant_that_the_tables_have() -> None:
    shown = {row.variant for loop in LOOPS for row in rows_of(loop)}
    assert variants_in_commands(PAGE) | {"original"} == shown

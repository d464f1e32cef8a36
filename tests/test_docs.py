"""The pages of the documentation: each block of Python runs as it stands, those of a page one after another."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import DOCS, ROOT, blocks_of, ran_blocks

RUN_ELSEWHERE = (
    "denoising.md",
    "emoji.md",
    "policies.md",
    "recipes.md",
    "report.md",
    "sessions.md",
)
"""Pages whose blocks other tests run, together with what is said of their results."""

PAGES = sorted(
    str(own.relative_to(ROOT))
    for own in DOCS.rglob("*.md")
    if own.name not in RUN_ELSEWHERE and blocks_of(str(own.relative_to(ROOT)))
)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run_one_after_another(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for names in ran_blocks(page):
        assert names


@pytest.mark.parametrize("page", RUN_ELSEWHERE)
def test_another_test_runs_the_blocks_of_a_page(page: str) -> None:
    call = f'ran_blocks("docs/{page}")'
    assert any(call in own.read_text(encoding="utf-8") for own in (ROOT / "tests").rglob("test_*.py"))


def test_every_page_is_in_the_navigation() -> None:
    told = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(own.relative_to(DOCS)) for own in DOCS.rglob("*.md")}
    assert not {page for page in pages if f": {page}\n" not in told}


def test_the_api_has_everything_that_is_exported() -> None:
    import marche_fx

    told = (DOCS / "api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: marche_fx\.(\w+)$", told, re.MULTILINE)) == set(marche_fx.__all__)

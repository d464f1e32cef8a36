"""The pages of the documentation: each block of Python runs as it stands, those of a page one after another."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RUN_ELSEWHERE = (
    "denoising.md",
    "emoji.md",
    "head.md",
    "policies.md",
    "recipes.md",
    "report.md",
    "sessions.md",
    "tokens.md",
)
"""Pages whose blocks other tests run, together with what is said of their results."""

PAGES = sorted(
    own
    for own in (ROOT / "docs").rglob("*.md")
    if own.name not in RUN_ELSEWHERE and "```python\n" in own.read_text(encoding="utf-8")
)


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def is_offline(block: str) -> bool:
    """Whether a block loads no weights from elsewhere."""
    return "from_pretrained(" not in block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run_one_after_another(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(blocks_of(page)):
        code = compile(block, f"{page.name}, block {number}", "exec")
        if is_offline(block):
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                exec(code, names)


def test_every_page_is_in_the_navigation() -> None:
    told = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(own.relative_to(ROOT / "docs")) for own in (ROOT / "docs").rglob("*.md")}
    assert not {page for page in pages if f": {page}\n" not in told}


def test_the_api_has_everything_that_is_exported() -> None:
    import marche_fx

    told = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: marche_fx\.(\w+)$", told, re.MULTILINE)) == set(marche_fx.__all__)

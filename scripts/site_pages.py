"""What the documentation site adds to the folder ``docs``: pages of files outside of it, and links that lead there.

The README is the first page and the CHANGELOG another; a source file that a page links to is shown as a page, so that
the site needs no other place to look at. mkdocs calls the functions ``on_...`` while it builds; see mkdocs.yml.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]

MOVED = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}
"""Pages of the site that are files of the repository outside of ``docs``."""

LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml", ".json": "json", ".md": "markdown", ".sh": "bash"}

LINK = re.compile(r"(?<=\]\()([^)#\s]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in ``docs``."""
    for source, page in MOVED.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    sources = {own for file in files if file.is_documentation_page() for own in linked_sources(file)}
    for source in sorted(sources):
        files.append(File.generated(config, page_of_source(source), content=shown(source)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links lead to pages of the site; source files that are shown stay as they are."""
    if page.file.src_uri.startswith("source/"):
        return markdown
    origin = origin_of(page.file.src_uri)

    def replaced(found: re.Match[str]) -> str:
        source = within_repository(origin, found[1])
        if source is None:
            return found[0]
        return posixpath.relpath(page_of(source), posixpath.dirname(page.file.src_uri) or ".") + (found[2] or "")

    return LINK.sub(replaced, markdown)


def origin_of(page: str) -> str:
    """Where in the repository a page of the site lies."""
    return next((source for source, own in MOVED.items() if own == page), f"docs/{page}")


def within_repository(origin: str, link: str) -> str | None:
    """The path in the repository that a link of a page there leads to; None for one that leads elsewhere."""
    return None if "://" in link else posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))


def page_of(source: str) -> str:
    """The page or picture of the site that a file of the repository is."""
    if source in MOVED:
        return MOVED[source]
    return source.removeprefix("docs/") if source.startswith("docs/") else page_of_source(source)


def page_of_source(source: str) -> str:
    return f"source/{source}.md"


def linked_sources(file: File) -> Iterator[str]:
    """Files and folders outside of ``docs`` that a page links to."""
    origin = origin_of(file.src_uri)
    for link in LINK.finditer(file.content_string):
        source = within_repository(origin, link[1])
        if source is not None and not source.startswith("docs/") and source not in MOVED and (ROOT / source).exists():
            yield source


def shown(source: str) -> str:
    """A page with the text of a file, or with the names in a folder; searches leave it out."""
    path = ROOT / source
    inside = path.is_dir()
    names = sorted(own.name for own in path.iterdir() if own.name != "__pycache__") if inside else []
    text = "\n".join(names) if inside else path.read_text(encoding="utf-8")
    fence = f"~~~~~~{'' if inside else LANGUAGES.get(path.suffix, 'text')}"
    return f"---\nsearch:\n  exclude: true\n---\n# {source}\n\n{fence}\n{text}\n~~~~~~\n"

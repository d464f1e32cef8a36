"""Every error and warning has its entry on the page, and every entry is of one that exists."""

from __future__ import annotations

import re

import pytest

from .messages import ROOT, VARIES, letters, messages

PAGE = ROOT / "docs/troubleshooting.md"

FEWEST_LETTERS = 4
"""An entry with fewer would be one of nearly everything."""

WRAPPERS = {"marche_fx/evaluate/points.py", "marche_fx/sampling/folder.py", "marche_fx/saving/container.py"}
"""Where a text is another one's: of a policy's argument, of the system about a file, of an error that is told of."""


def entries() -> list[str]:
    return re.findall(r"^``(.+)``$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def pattern(entry: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, entry.split(VARIES))))


def test_every_message_has_an_entry() -> None:
    patterns = [pattern(own) for own in entries()]
    told = [own for own in messages() if letters(own.text)]
    missing = [own for own in told if not any(each.fullmatch(own.text) for each in patterns)]
    assert not missing, "\n".join(
        ["give these an entry in the page:", *(f"{own.where} ``{own.text}``" for own in missing)]
    )
    assert {own.where.partition(":")[0] for own in messages() if not letters(own.text)} <= WRAPPERS


def test_every_entry_is_of_a_message() -> None:
    texts = [own.text for own in messages()]
    assert not [own for own in entries() if not any(pattern(own).fullmatch(text) for text in texts)]


@pytest.mark.parametrize("entry", entries())
def test_an_entry_says_something(entry: str) -> None:
    assert letters(entry) >= FEWEST_LETTERS


def test_no_two_entries_are_alike() -> None:
    assert len(entries()) == len(set(entries()))

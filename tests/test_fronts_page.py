"""docs/fronts.md: its tables, and the figures of its prose, are what its JSON holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from marche_fx.evaluate.fronts.command import parser
from marche_fx.recipes.presets import bundled
from tests.pages import line

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "fronts.md").read_text(encoding="utf-8")
GARMENTS: dict[str, Any] = json.loads((ROOT / "docs" / "fronts" / "garments.json").read_text())
EMOJI: dict[str, Any] = json.loads((ROOT / "docs" / "emoji" / "study.json").read_text())
RECIPES: dict[str, Any] = json.loads((ROOT / "docs" / "fronts" / "emoji-recipes.json").read_text())
"""``recipes`` of many pictures, and ``rivals`` of the first of them."""
NUMBER = r"[+-]?\d+\.\d\d"


SECTIONS = {"garments": (GARMENTS, "flops"), "emoji": (EMOJI, "whole_flops")}
"""What each section is of, and what its JSON calls the FLOPs of a whole generation."""


def flops(section: str) -> dict[str, float]:
    """Of each way over the first one's."""
    front, name = SECTIONS[section]
    first = front["rows"][0][name]
    return {row["way"]: row[name] / first for row in front["rows"]}


def spoken(own: dict[str, float], sign: str = "") -> str:
    return f"{own['estimate']:{sign}.2f} ({own['low']:{sign}.2f} to {own['high']:{sign}.2f})"


def table(section: str) -> str:
    shares = flops(section)
    return "\n".join(
        line(
            f"`{row['way']}`",
            f"{shares[row['way']]:.1%}",
            *([f"{row['time_ratio']:.1%}"] if "time_ratio" in row else []),
            spoken(row["frechet"]),
            spoken(row["over_first"], "+") if number else "",
            f"{row['label_accuracy']:.1%}",
        )
        for number, row in enumerate(SECTIONS[section][0]["rows"])
    )


def prose(section: str = "") -> str:
    """Of one section, or of all of the page."""
    text = PAGE if not section else PAGE.partition(f"## {section.title()}\n")[2].partition("\n## ")[0]
    return " ".join(" ".join(own for own in text.splitlines() if not own.startswith("|")).split())


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_has_the_figures_of_every_way(section: str) -> None:
    assert table(section) in PAGE
    count = SECTIONS[section][0]["images"]
    assert f"{count:,} garments a way" in prose(section) or f"{count:,} pictures each" in prose(section)


@pytest.mark.parametrize("section", SECTIONS)
def test_ways_in_the_prose_are_told_with_their_figures(section: str) -> None:
    over = {row["way"]: spoken(row["over_first"], "+") for row in SECTIONS[section][0]["rows"]}
    number = rf"({NUMBER} \({NUMBER} to {NUMBER}\))"
    told = re.findall(rf"`([^`]+@\d[^`]*)`,?(?: \d+\.\d%(?: of the FLOPs)?,)? (?:is )?at {number}", prose(section))
    assert len(told) >= 4
    assert all(over[way] == own for way, own in told)
    shares = re.findall(r"`([^`]+@\d+)`, (?:at [^`]*?\), takes )?(\d+\.\d)%", prose(section))
    assert len(shares) >= 3
    assert all(f"{flops(section)[way]:.1%}" == f"{share}%" for way, share in shares)


@pytest.mark.parametrize(("part", "is_paired"), [("recipes", False), ("rivals", True)])
def test_the_page_has_the_figures_of_recipes_of_emoji(part: str, is_paired: bool) -> None:
    whole = EMOJI["rows"][0]["whole_flops"]
    rows = [
        line(
            f"`{row['way']}`",
            f"{row['flops'] / whole:.1%}",
            spoken(row["frechet"]),
            *([spoken(row["over_first"], "+") if number else ""] if is_paired else []),
            f"{row['label_accuracy']:.1%}",
        )
        for number, row in enumerate(RECIPES[part]["rows"])
    ]
    assert "\n".join(rows) in PAGE
    assert f"{RECIPES[part]['images']} " in prose("emoji")


def test_recipes_of_emoji_have_the_figures_of_the_front() -> None:
    (_, *rows) = RECIPES["rivals"]["rows"]
    for row, name in zip(rows, ("balanced", "fast"), strict=False):
        figures, over = bundled(name, "emoji").figures, row["over_first"]
        assert row["way"].startswith(f"recipe:{name}@")
        assert [figures[own] for own in ("loss", "low", "high")] == [
            round(over[own], 2) for own in ("estimate", "low", "high")
        ]
        assert (figures["labels"], figures["images"]) == (round(row["label_accuracy"], 3), RECIPES["rivals"]["images"])


def test_every_interval_in_the_prose_is_of_the_results() -> None:
    fronts = (GARMENTS, RECIPES["recipes"], RECIPES["rivals"])
    rows = (*EMOJI["rows"], *(row for front in fronts for row in front["rows"]))
    known = [own for row in rows for own in (row["frechet"], row["over_first"])]
    known += [own for front in fronts for others in front["differences"].values() for own in others.values()]
    bounds = {(f"{own['low']:{sign}.2f}", f"{own['high']:{sign}.2f}") for own in known for sign in ("+", "")}
    told = set(re.findall(rf"({NUMBER}) to ({NUMBER})", prose()))
    assert len(told) >= 12
    assert told <= bounds


def test_rivals_are_compared_with_the_recipe_on_the_same_draws() -> None:
    for rival, below in (("disa@16", True), ("lazymar@32", False)):
        own = GARMENTS["over_recipes"][rival]
        assert own["recipe"] == "recipe:balanced@16"
        assert (own["estimate"] < 0) == below
        assert f"by {abs(own['estimate']):.2f} ({own['low']:+.2f} to {own['high']:+.2f}" in prose()
    shares = flops("garments")
    ratio = shares["disa@16"] / shares["recipe:balanced@16"]
    assert f"for {ratio:.1f} times its FLOPs" in prose()


def test_the_commands_are_ones() -> None:
    (block,) = re.findall(r"```\n(python .*?)```", PAGE, re.DOTALL)
    for command in block.splitlines():
        given = parser().parse_args(command.partition("marche_fx.evaluate.fronts ")[2].split())
        assert given.task in ("garments", "emoji")

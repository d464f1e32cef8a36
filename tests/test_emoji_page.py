"""docs/emoji.md: its table, and the figures of its prose, are what its JSON holds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from marche_fx.evaluate import parse_point
from marche_fx.evaluate.fronts.command import parser
from marche_fx.models.bundled import EMOJI_WEIGHTS
from tests.pages import line, ran_blocks, shares_in_prose

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "emoji.md").read_text(encoding="utf-8")
STUDY: dict[str, Any] = json.loads((ROOT / "docs" / "emoji" / "study.json").read_text())
ROWS: list[dict[str, Any]] = STUDY["rows"]
STEPS = {row["way"]: parse_point(row["way"]).steps or 0 for row in ROWS}
FLOPS = {row["way"]: row["transformer_flops_ratio"] * STEPS[row["way"]] / 64 for row in ROWS}
"""Of the transformer, all exact steps taken to cost the same."""

NUMBER = r"[+-]?\d+\.\d\d"


def spoken(interval: dict[str, float]) -> str:
    return f"({interval['low']:.2f} to {interval['high']:.2f})"


def table() -> list[str]:
    """FLOPs, distance, difference from exact decoding, labels and seconds of every way."""
    return [
        line(
            f"`{row['way']}`",
            f"{FLOPS[row['way']]:.1%}",
            f"{row['frechet']['estimate']:.2f} {spoken(row['frechet'])}",
            f"{row['over_first']['estimate']:+.2f} {spoken(row['over_first'])}" if number else "",
            f"{row['label_accuracy']:.1%}",
            f"{row['seconds']:.1f}",
        )
        for number, row in enumerate(ROWS)
    ]


def flat(page: str) -> str:
    return " ".join(page.split())


def test_the_page_has_the_figures_of_every_way() -> None:
    assert "\n".join(table()) in PAGE
    assert STUDY["images"] == 1135
    assert (STUDY["cfg"], STUDY["temperature"]) == (3, 1)


def test_the_ways_are_those_of_the_command() -> None:
    (command,) = re.findall(r"python -m marche_fx.evaluate.fronts ([^`]+)```", PAGE)
    given = parser().parse_args(command.replace("\\\n", " ").split())
    assert given.ways == [row["way"] for row in ROWS]
    assert (given.images, given.images % given.batch) == (STUDY["images"], 0)


def test_intervals_in_the_prose_are_those_of_the_study() -> None:
    prose = flat("\n".join(own for own in PAGE.splitlines() if not own.startswith("|")))
    found = {
        (f"{own['low']:.2f}", f"{own['high']:.2f}") for row in ROWS for own in (row["frechet"], row["over_first"])
    } | {(f"{own['low']:.2f}", f"{own['high']:.2f}") for own in STUDY["references"].values() if isinstance(own, dict)}
    told = set(re.findall(rf"({NUMBER}) to ({NUMBER})", prose))
    assert len(told) > 8
    # The last is where two intervals overlap.
    lowest, highest = (of("exact@16")["low"], of("default@64")["high"])
    assert told <= found | {(f"{lowest:.2f}", f"{highest:.2f}")}


def of(way: str) -> dict[str, float]:
    """How far it lies above the first way."""
    return next(row["over_first"] for row in ROWS if row["way"] == way)


def test_ways_in_the_prose_are_told_with_their_figures() -> None:
    prose = flat(PAGE.partition("- **Steps matter here.**")[2])
    costs = re.findall(r"`([^`]+)`, (\d+\.\d)%", prose)
    assert len(costs) >= 6
    assert all(f"{FLOPS[way]:.1%}" == f"{share}%" for way, share in costs)
    differences = re.findall(rf"`([^`]+)`, (?:\d+\.\d%, )?at ({NUMBER}) \(", prose)
    assert {way for way, _ in differences} == {row["way"] for row in ROWS} - {"exact@64", "exact@4"}
    assert all(f"{of(way)['estimate']:+.2f}" == own for way, own in differences)


def test_every_share_in_the_prose_is_in_the_results() -> None:
    accuracies = [row["label_accuracy"] for row in ROWS]
    accuracies += [STUDY["references"][f"{name}_label_accuracy"] for name in ("pictures_seen", "held_out")]
    told = shares_in_prose(PAGE)
    assert told
    assert told <= {f"{value:.1%}" for value in (*accuracies, *FLOPS.values())}


def test_the_finding_told_elsewhere_is_that_of_the_study() -> None:
    for page in ("README.md", "docs/quality.md"):
        text = flat((ROOT / page).read_text(encoding="utf-8"))
        assert "emoji.md#fewer-steps-or-a-cache" in text
        for way in ("exact@16", "default@64"):
            assert f"{of(way)['estimate']:+.2f} {spoken(of(way))}" in text


def test_the_block_draws_a_picture() -> None:
    (names,) = ran_blocks("docs/emoji.md")
    assert names["pictures"].shape == (1, 3, 64, 64)


def test_the_notice_beside_the_weights_names_whose_pictures_they_are_of() -> None:
    notice = (EMOJI_WEIGHTS / "NOTICE.md").read_text(encoding="utf-8")
    sources = re.findall(r"^\| `([^`]+)` ([\d.]+) .*\| ([^|]+) \|$", PAGE, re.MULTILINE)
    assert len(sources) == 4
    for package, version, licence in sources:
        (own,) = [row for row in notice.splitlines() if f"`{package}` {version} " in row and row.startswith("|")]
        assert licence.split()[0] in own
    assert "(../marche_fx/models/weights/emoji/NOTICE.md)" in PAGE
    assert "marche_fx/models/weights/emoji/NOTICE.md" in (ROOT / "pyproject.toml").read_text()


def test_pictures_are_small() -> None:
    pictures = [path.stat().st_size for path in (ROOT / "docs" / "emoji").glob("*.png") if path.stem != "study"]
    assert len(pictures) == 2
    assert sum(pictures) <= 400_000

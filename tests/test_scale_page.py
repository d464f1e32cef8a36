"""docs/scale.md: what it says of many sessions is what the JSON of the soak holds."""

from __future__ import annotations

import json
from pathlib import Path

from marche_fx.bench.soak import MOST, POLICIES, RARE, SHAPES, Reading
from marche_fx.passes.lower.kept import MOST_KEPT
from marche_fx.runtime.method import MOST_CAPTURES
from tests.pages import line

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
PROSE = " ".join(PAGE.split())
READINGS = [Reading(**own) for own in json.loads((ROOT / "docs" / "scale" / "soak.json").read_text())]
EVERY, RARE_IN = 250, 50


def settled() -> list[Reading]:
    """Those after every shape was there once: rare ones come one after another, to whichever policy's turn it is."""
    return [own for own in READINGS if own.sessions >= RARE * RARE_IN * len(POLICIES)]


def test_the_table_has_the_readings() -> None:
    shown = [READINGS[0], settled()[0], READINGS[-1]]
    for own in shown:
        assert (
            line(
                f"{own.sessions:,}",
                f"{own.resident_mib:.1f}",
                f"{own.tensors:,}",
                str(own.threads),
                str(own.descriptors),
                f"{own.captures}, {own.dropped:,}",
                f"{own.operators:.0f}",
                f"{own.microseconds / 1000:.1f}",
            )
            in PAGE
        )


def test_the_prose_says_what_was_run() -> None:
    assert (READINGS[-1].sessions, len(READINGS)) == (10_000, 10_000 // EVERY)
    assert f"--sessions 10000 --every {EVERY} --rare {RARE_IN}" in PAGE
    assert f"{len(SHAPES)} shapes and {len(POLICIES)} policies in turn" in PROSE
    assert f"one session in {RARE_IN} is of one of {RARE} rare lengths" in PROSE
    assert f"with `max_captures={MOST}`" in PROSE
    assert f"| captures of a step | {MOST_CAPTURES}, or" in PAGE
    assert f"| {MOST_KEPT} in a process |" in PAGE


def test_nothing_grows_once_every_shape_was_there() -> None:
    first, last = settled()[0], settled()[-1]
    assert last.captures == first.captures == MOST * len(POLICIES)
    assert last.dropped > first.dropped
    assert (last.threads, last.descriptors) == (first.threads, first.descriptors)
    mib, made = last.resident_mib - first.resident_mib, last.dropped - first.dropped
    grown = f"it grows by {mib:.1f} MiB and {last.tensors - first.tensors} tensors, while {made} captures are dropped"
    assert f"From {first.sessions:,} sessions on {grown}" in PROSE
    assert f"others made: {mib * 1024 / made:.0f} KiB for each" in PROSE

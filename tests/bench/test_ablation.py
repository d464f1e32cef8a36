"""Each ingredient alone, and all but each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marche_fx import FullRefresh, SelectiveRefresh
from marche_fx.bench import Bench, Settings, command
from marche_fx.bench.ablation import INGREDIENTS, ablation_of, ablation_variants
from marche_fx.bench.variants import Variant
from marche_fx.cli import app
from tests.bench.rows import a_row


def by_name(settings: Settings) -> dict[str, Variant]:
    return {own.name: own for own in ablation_variants(settings)}


def has(variant: Variant) -> set[str]:
    """The ingredients of a variant, told by what it does."""
    reuse = variant.head.reuse
    found = {
        "refresh": variant.policies == SelectiveRefresh(0.05),
        "denoising": variant.head.denoising is not None,
        "reuse": reuse is not None and reuse.slow is not None,
        "guidance": reuse is not None and reuse.guidance > 1,
        "steps": variant.steps == 32,
    }
    assert found["refresh"] or variant.policies == FullRefresh()
    return {name for name, is_there in found.items() if is_there}


def test_every_ingredient_is_there_alone_and_missing_alone() -> None:
    found = by_name(Settings())
    assert found.pop("eager") == Variant("eager")
    assert all(own.compile for own in found.values())
    expected: dict[str, set[str]] = {"none": set(), "all": set(INGREDIENTS)}
    expected |= {f"only {own}": {own} for own in INGREDIENTS}
    expected |= {f"all but {own}": set(INGREDIENTS) - {own} for own in INGREDIENTS}
    assert {name: has(own) for name, own in found.items()} == expected


def test_without_guidance_there_is_none_to_reuse() -> None:
    assert not any("guidance" in name for name in by_name(Settings(cfg=(1.0,))))
    assert has(by_name(Settings(cfg=(1.0,)))["all"]) == set(INGREDIENTS) - {"guidance"}


def test_the_worth_of_an_ingredient_is_a_ratio_of_seconds() -> None:
    seconds = {"eager": 12.0, "none": 8.0, "all": 1.0}
    seconds |= {f"only {own}": 4.0 + number for number, own in enumerate(INGREDIENTS)}
    seconds |= {f"all but {own}": 2.0 + number for number, own in enumerate(INGREDIENTS)}
    rows = [a_row(name, seconds=own) for name, own in seconds.items()]
    found = ablation_of(Bench({}, {}, (), (*rows, a_row("none", "head"), a_row("none", "transformer"))))
    assert [own.ingredient for own in found.rows] == list(INGREDIENTS)
    first, second, *_ = found.rows
    assert (first.alone, first.only_vs_eager, first.last, first.without_vs_eager) == (2.0, 3.0, 2.0, 6.0)
    assert (second.alone, second.last) == (8 / 5, 3.0)


def test_the_command_writes_a_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # To compile ten variants takes a minute and a half.
    def as_they_are(settings: Settings) -> list[Variant]:
        return [replace(own, compile=False) for own in ablation_variants(settings)]

    monkeypatch.setattr(command, "ablation_variants", as_they_are)
    arguments = ["--ablation", "--size", "fashion", "--batch", "1", "--cfg", "1", "--steps", "4", "--repeats", "1"]
    result = CliRunner().invoke(app, ["bench", *arguments, "--out", str(tmp_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "times less time with an ingredient" in result.output
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert [own["ingredient"] for own in found["rows"]] == ["refresh", "denoising", "reuse", "steps"]
    assert all(own[name] > 0 for own in found["rows"] for name in ("alone", "last", "only_vs_eager"))
    assert {own["variant"] for own in json.loads((tmp_path / "bench.json").read_text())["rows"]} >= {"none", "all"}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--variant", "eager"), "has variants of its own"),
        (("--model", "a:b"), "has variants of its own"),
        (("--denoising", "25"), "compares heads"),
        (("--no-head",), "compares heads"),
    ],
)
def test_it_takes_no_options_that_are_its_own(option: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", "--ablation", *option])
    assert f"--ablation {message}" in str(result.exception)

"""The demo, small."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from marche_fx import ArgumentError, Denoising, HeadReuse, Recipe, RecipeError, SelectiveRefresh, save_recipe
from marche_fx.models import load_fashion_mar
from marche_fx.models.demo import run_demo

QUICK = Recipe(SelectiveRefresh(0.1, warmup=1), Denoising(3), HeadReuse(guidance=2), steps=4, order="halton")
ANNEALED = Recipe(denoising=Denoising(anneal=(3, 2)), steps=4)


@pytest.mark.slow
def test_the_demo_prints_its_tables_and_writes_a_picture(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), record=True, width=120)
    out, own, falling = tmp_path / "demo.png", tmp_path / "quick.json", tmp_path / "annealed.json"
    save_recipe(QUICK, own)
    save_recipe(ANNEALED, falling)
    mar = load_fashion_mar(num_sampling_steps=4)
    run_demo(out, mar=mar, per_class=1, steps=8, recipes=["exact", str(own), str(falling)], console=console)
    printed = console.export_text()
    rows = {cells[0].strip(): cells[1:] for line in printed.splitlines() if len(cells := line.split("│")[1:-1]) == 5}
    assert [own.strip() for own in rows["decoding steps"]] == ["8", "8", "4", "4"]
    assert [own.strip() for own in rows["denoising steps"]] == ["4", "4", "3", "3 to 2"]
    whole, exact, quick, _ = (float(own) for own in rows["whole s"])
    assert min(whole, exact, quick) > 0
    _, _, faster, _ = (float(own.strip().removesuffix("x")) for own in rows["times faster"])
    assert faster == pytest.approx(whole / quick, rel=0.2), "of the whole, as far as seconds are printed"
    assert "images that show their label" in printed
    assert "not known" in printed, "a recipe without figures"
    assert str(out.resolve()) in printed.replace("\n", "")
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("out", "per_class"), [("missing/demo.png", 1), ("demo.png", 0), ("demo.nothing", 1)])
def test_the_demo_refuses_before_it_generates(tmp_path: Path, out: str, per_class: int) -> None:
    with pytest.raises(ArgumentError, match=r"folder|at least one|is saved as"):
        run_demo(tmp_path / out, per_class=per_class)


def test_the_demo_refuses_a_recipe_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="unknown recipe 'quickly'"):
        run_demo(tmp_path / "demo.png", recipes=["quickly"])

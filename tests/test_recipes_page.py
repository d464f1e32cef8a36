"""docs/recipes.md: its programs run as they stand, and its table is what the recipes' files hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from marche_fx import Recipe
from marche_fx.recipes.presets import EXACT, NAMES, TASKS, bundled
from marche_fx.recipes.recipe import brief
from tests.pages import ran_blocks

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")


def line(name: str, recipe: Recipe) -> str:
    figures = recipe.figures
    cells = [
        f"`{name}`",
        str(recipe.steps),
        *(f"`{brief(own)}`" for own in (recipe.refresh, recipe.denoising, recipe.reuse)),
        f"{figures['speedup']:.1f}x",
        f"{figures['loss']:+.2f} ({figures['low']:+.2f} to {figures['high']:+.2f})",
        f"{figures['labels']:.1%}",
    ]
    return f"| {' | '.join(cells)} |"


@pytest.mark.parametrize("task", TASKS)
def test_the_table_is_what_the_files_hold(task: str) -> None:
    assert "\n".join(line(name, bundled(name, task)) for name in NAMES if name != EXACT) in PAGE


@pytest.mark.slow
def test_the_programs_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    *_, names = ran_blocks("docs/recipes.md")
    assert len(names["images"]) == 2
    assert (tmp_path / "found.json").exists()

"""Recipes that come along."""

from __future__ import annotations

from pathlib import Path

import pytest

from marche_fx import FullRefresh, Recipe, RecipeError
from marche_fx.models import MAR, load_emoji_mar, load_fashion_mar
from marche_fx.recipes import preset_for, presets, structure_of
from marche_fx.recipes.presets import EXACT, NAMES, TASKS
from tests.models.tiny import tiny_mar

FOUND = [name for name in NAMES if name != EXACT]

STEPS = {"garments": 32, "emoji": 64}
"""In which the exact models are studied."""


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def mar(task: str) -> MAR:
    return {"garments": load_fashion_mar, "emoji": load_emoji_mar}[task]()


@pytest.mark.parametrize("name", FOUND)
def test_a_preset_is_of_the_bundled_model(name: str, task: str, mar: MAR) -> None:
    found = preset_for(name, mar)
    assert found == presets.bundled(name, task)
    assert found.model == structure_of(mar)
    assert found.arguments(mar, 2)["num_iter"] <= STEPS[task]
    assert found.denoising is not None
    assert min(found.denoising.counts) < len(mar.diffloss.gen_diffusion)
    assert found.refresh != FullRefresh()


def test_every_file_is_a_preset(task: str) -> None:
    folder = Path(presets.__file__).parent / task
    assert sorted(path.stem for path in folder.glob("*.json")) == sorted(FOUND)


def test_exact_is_of_any_model_and_other_names_are_refused() -> None:
    mar = tiny_mar()
    assert preset_for(EXACT, mar) == Recipe()
    with pytest.raises(RecipeError, match="another model"):
        preset_for("fast", mar)
    with pytest.raises(RecipeError, match="exact, balanced, fast"):
        preset_for("Fast", mar)

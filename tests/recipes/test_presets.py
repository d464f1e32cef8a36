"""Recipes that come along."""

from __future__ import annotations

import pytest

from marche_fx import FullRefresh, Recipe, RecipeError
from marche_fx.models import load_fashion_mar
from marche_fx.recipes import preset_for, structure_of
from marche_fx.recipes.presets import EXACT, FOLDER, NAMES
from tests.models.tiny import tiny_mar

FOUND = [name for name in NAMES if name != EXACT]


@pytest.mark.parametrize("name", FOUND)
def test_a_preset_is_of_the_bundled_model(name: str) -> None:
    mar = load_fashion_mar()
    found = preset_for(name, mar)
    assert found.model == structure_of(mar)
    assert found.arguments(mar, 2)["num_iter"] < 32
    assert found.denoising is not None
    assert min(found.denoising.counts) < len(mar.diffloss.gen_diffusion)
    assert found.refresh != FullRefresh()


def test_every_file_is_a_preset() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == sorted(FOUND)


def test_exact_is_of_any_model_and_other_names_are_refused() -> None:
    mar = tiny_mar()
    assert preset_for(EXACT, mar) == Recipe()
    with pytest.raises(RecipeError, match="another model"):
        preset_for("fast", mar)
    with pytest.raises(RecipeError, match="exact, balanced, fast"):
        preset_for("Fast", mar)

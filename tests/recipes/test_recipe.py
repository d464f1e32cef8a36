"""What a recipe may say, and what it makes of it for a loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from torch import nn

from marche_fx import ArgumentError, Denoising, FullRefresh, HeadReuse, Recipe, RecipeError, SelectiveRefresh
from marche_fx.orders import COUNTS, halton_order
from marche_fx.recipes import structure_of
from tests.models.tiny import tiny_mar
from tests.recipes.given import RECIPES


def test_a_recipe_that_says_nothing_is_exact() -> None:
    recipe = Recipe()
    assert recipe.refresh == FullRefresh()
    assert not recipe.told
    assert recipe.arguments(nn.Linear(1, 1), 3) == {}, "no grid is needed where nothing is told"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": -1}, "steps"),
        ({"steps": True}, "steps"),
        ({"steps": 2.0}, "steps"),
        ({"order": "spiral"}, "halton"),
        ({"order": []}, "order"),
        ({"counts": "many"}, "cosine"),
        ({"cfg": 0.0}, "cfg"),
        ({"cfg": math.nan}, "cfg"),
        ({"cfg": "3"}, "cfg"),
        ({"temperature": math.inf}, "temperature"),
        ({"cfg_schedule": "falling"}, "constant"),
        ({"refresh": "balanced"}, "refresh"),
        ({"denoising": "quadratic:10"}, "denoising"),
        ({"reuse": "exact"}, "reuse"),
        ({"model": 3}, "model"),
        ({"figures": {"loss": math.nan}}, "figures"),
        ({"figures": [1.0]}, "figures"),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(ArgumentError, match=word):
        Recipe(**arguments)


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
def test_a_solver_without_noise_takes_no_temperature(solver: str) -> None:
    flow = Denoising(8, solver=solver)
    with pytest.raises(ArgumentError, match="adds no noise"):
        Recipe(denoising=flow, temperature=0.8)
    assert Recipe(denoising=flow, temperature=1.0).denoising == flow
    assert Recipe(denoising=Denoising(8), temperature=0.8).temperature == 0.8


def test_denoising_falls_over_the_steps_that_the_recipe_decodes_in() -> None:
    falling = Denoising(anneal=(8, 4), decoding_steps=16)
    with pytest.raises(ArgumentError, match="16 decoding steps, and the recipe decodes in 12"):
        Recipe(denoising=falling, steps=12)
    assert Recipe(denoising=falling, steps=16).steps == 16


def test_a_loop_is_told_what_the_recipe_says_in_its_own_words() -> None:
    mar = tiny_mar()
    recipe = Recipe(steps=5, order="halton", counts="linear", cfg=2.0, cfg_schedule="constant", temperature=0.9)
    found = recipe.arguments(mar, 3, torch.Generator().manual_seed(4))
    orders = found.pop("orders")
    # MAR decodes the last of an order first.
    expected = halton_order(3, mar.seq_h, mar.seq_w, torch.Generator().manual_seed(4))
    assert torch.equal(orders.flip(-1), expected)
    counts = COUNTS["linear"](mar.seq_len, 5)
    told = {"num_iter": 5, "counts": counts, "cfg": 2.0, "cfg_schedule": "constant", "temperature": 0.9}
    assert found == told


def test_an_order_follows_the_global_seed_where_there_is_no_generator() -> None:
    mar, recipe = tiny_mar(), Recipe(order="checkerboard")

    def orders(seed: int) -> list[Any]:
        torch.manual_seed(seed)
        return recipe.arguments(mar, 2)["orders"].tolist()

    assert orders(0) == orders(0)
    assert orders(0) != orders(1)
    assert orders(0)[0] != orders(0)[1], "samples differ"


def test_more_steps_than_tokens_are_refused() -> None:
    mar = tiny_mar()
    assert Recipe(steps=mar.seq_len).arguments(mar, 1)["num_iter"] == mar.seq_len
    with pytest.raises(RecipeError, match=f"{mar.seq_len + 1} steps, and MAR has {mar.seq_len} tokens"):
        Recipe(steps=mar.seq_len + 1).arguments(mar, 1)


def test_counts_without_steps_and_models_without_a_grid_are_refused() -> None:
    with pytest.raises(RecipeError, match="no seq_h"):
        Recipe(steps=3).arguments(nn.Linear(1, 1), 1)
    with pytest.raises(RecipeError, match="counts='linear'"):
        Recipe(counts="linear").arguments(tiny_mar(), 1)


@given(RECIPES)
def test_equal_recipes_are_one_key_whatever_was_measured(recipe: Recipe) -> None:
    values = {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}
    other = Recipe(**{**values, "figures": {"loss": 1.0}})
    assert other == recipe
    assert hash(other) == hash(recipe)
    assert str(other) == str(recipe)


def test_a_recipe_is_printed_without_what_it_leaves_alone() -> None:
    recipe = Recipe(SelectiveRefresh(0.2), Denoising(10, "quadratic"), HeadReuse(guidance=2), steps=12)
    assert str(recipe) == (
        "Recipe(refresh=SelectiveRefresh(fraction=0.2), denoising=Denoising(steps=10, spacing='quadratic'), "
        "reuse=HeadReuse(guidance=2), steps=12)"
    )


def test_a_structure_is_that_of_shapes_and_classes_alone() -> None:
    mar = tiny_mar()
    own = structure_of(mar)
    assert structure_of(tiny_mar(num_sampling_steps=3)) == own
    assert structure_of(tiny_mar().float()) == own
    with torch.no_grad():
        next(mar.parameters()).add_(1)
    assert structure_of(mar) == own, "a new training"
    others = [tiny_mar(diffloss_w=24), tiny_mar(encoder_depth=3), tiny_mar(img_size=12), nn.Linear(2, 2)]
    others += [nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU())]
    assert len({own, *map(structure_of, others)}) == 7

"""What is mixed, and what is usual."""

from __future__ import annotations

import pytest

from marche_fx import ArgumentError, Denoising, FullRefresh, HeadReuse, Ingredients, Recipe, SelectiveRefresh
from marche_fx.tuning.ingredients import usual_ingredients

BASE = Recipe(steps=8, cfg=2.0, temperature=0.8)


def test_every_mix_is_there_once_and_the_original_first() -> None:
    policies = [FullRefresh(), SelectiveRefresh(0.2)]
    ingredients = Ingredients(
        steps=(4, 8), refresh=policies, denoising=(None, Denoising(3)), reuse=(HeadReuse(),), orders=("halton",)
    )
    heads = ingredients.heads(BASE)
    found = ingredients.mixed(BASE, ingredients.policies(BASE), heads)
    assert heads[0] == found[0] == BASE
    assert len(found) == len(set(found)) == 2 * 2 * 2 * 2 * 2, "what the original does is not there twice"
    assert all(own.cfg == 2.0 and own.temperature == 0.8 for own in found)


def test_what_contradicts_the_original_is_refused_by_name() -> None:
    with pytest.raises(ArgumentError, match="adds no noise"):
        Ingredients(denoising=(Denoising(3, solver="ddim"),)).heads(BASE)


def test_the_usual_ingredients_are_of_what_the_model_has() -> None:
    found = usual_ingredients(BASE, has_head=True, takes_orders=True)
    assert found.steps == [8, 4, 3, 2]
    assert found.denoising
    assert found.reuse
    assert found.orders == ["halton"]
    bare = usual_ingredients(BASE, has_head=False, takes_orders=False)
    assert not (*bare.denoising, *bare.reuse, *bare.orders)
    assert bare.refresh == found.refresh
    with pytest.raises(ArgumentError, match="decoding steps"):
        usual_ingredients(Recipe(), has_head=True, takes_orders=True)

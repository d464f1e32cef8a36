"""Recipes as JSON, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import marche_fx
from marche_fx import (
    ArgumentError,
    CheckpointError,
    Denoising,
    DriftRefresh,
    HeadReuse,
    Recipe,
    RefreshPolicy,
    SelectiveRefresh,
)
from marche_fx.plain import LARGEST
from marche_fx.recipes import recipe_from_dict, recipe_to_dict
from tests.recipes.given import RECIPES

SAMPLE = Recipe(SelectiveRefresh(0.1), Denoising(10, "quadratic"), HeadReuse(guidance=2), steps=12, order="halton")


@given(RECIPES)
def test_a_recipe_comes_back_as_it_was(recipe: Recipe) -> None:
    found = recipe_from_dict(json.loads(json.dumps(recipe_to_dict(recipe))))
    assert found == recipe
    assert dict(found.figures) == dict(recipe.figures)


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    marche_fx.save_recipe(SAMPLE, tmp_path / "own.json")
    assert marche_fx.load_recipe(tmp_path / "own.json") == SAMPLE


class Own(RefreshPolicy):
    """A policy that nobody else knows."""


def test_a_tolerance_may_be_infinite(tmp_path: Path) -> None:
    recipe = Recipe(DriftRefresh(tolerance=math.inf))
    marche_fx.save_recipe(recipe, tmp_path / "own.json")
    assert marche_fx.load_recipe(tmp_path / "own.json") == recipe


def test_a_policy_of_ones_own_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="built-in"):
        marche_fx.save_recipe(Recipe(Own()), tmp_path / "own.json")
    assert not (tmp_path / "own.json").exists()


def changed(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(recipe_to_dict(SAMPLE)))
    change(values)
    return values


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "no kind": lambda own: own.pop("kind"),
    "another kind": lambda own: own.update(kind="Denoising"),
    "another format": lambda own: own.update(format=2),
    "an unknown name": lambda own: own.update(__class__="os.system"),
    "no policy": lambda own: own.update(refresh=None),
    "an unknown policy": lambda own: own["refresh"].update(kind="Popen"),
    "a kind that is no word": lambda own: own["refresh"].update(kind=["SelectiveRefresh"]),
    "a head's reuse for a policy": lambda own: own.update(refresh=own["reuse"]),
    "a policy for a head's reuse": lambda own: own.update(reuse=own["refresh"]),
    "a list for a denoising": lambda own: own.update(denoising=[10]),
    "an argument that a policy has not": lambda own: own["refresh"].update(run="rm"),
    "no denoising steps": lambda own: own["denoising"].update(steps=0),
    "no decoding steps": lambda own: own.update(steps=0),
    "half a step": lambda own: own.update(steps=1.5),
    "a share above one": lambda own: own["refresh"].update(fraction=7),
    "a share that is a word": lambda own: own["refresh"].update(fraction="0.1"),
    "figures that are words": lambda own: own.update(figures={"loss": "small"}),
    "figures that are a number": lambda own: own.update(figures=3),
    "an order that is a list": lambda own: own.update(order=["halton"]),
    "a number that is too large": lambda own: own.update(cfg=10**400),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_values_of_anything_else_are_refused_by_name(name: str, tmp_path: Path) -> None:
    values = changed(HOSTILE[name])
    with pytest.raises(CheckpointError):
        recipe_from_dict(values)
    (tmp_path / "own.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError):
        marche_fx.load_recipe(tmp_path / "own.json")


def test_what_is_missing_is_what_a_recipe_leaves_alone() -> None:
    found = recipe_from_dict(changed(lambda own: [own.pop(name) for name in ("steps", "reuse", "figures")]))
    assert found == Recipe(SAMPLE.refresh, SAMPLE.denoising, order=SAMPLE.order)


TEXTS = {
    "nothing": b"",
    "no JSON": b"Recipe()",
    "no text": b"\xff\xfe\x00",
    "cut": json.dumps(recipe_to_dict(SAMPLE)).encode()[:-9],
    "a name twice": json.dumps(recipe_to_dict(SAMPLE)).replace('"steps": 12', '"steps": 12, "steps": 1', 1).encode(),
    "no number": json.dumps(recipe_to_dict(SAMPLE)).replace('"cfg": null', '"cfg": NaN').encode(),
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "large": b" " * (LARGEST + 1) + json.dumps(recipe_to_dict(SAMPLE)).encode(),
    "a list": b"[]",
    "digits": b"9" * 10_000,
}


@pytest.mark.parametrize("name", TEXTS)
def test_files_of_anything_else_are_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_bytes(TEXTS[name])
    with pytest.raises(CheckpointError):
        marche_fx.load_recipe(tmp_path / "own.json")


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("load", [marche_fx.load_policy, marche_fx.load_denoising, marche_fx.load_head_reuse])
def test_policies_are_read_as_carefully(load: Callable[[Path], Any], name: str, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_bytes(TEXTS[name])
    with pytest.raises(CheckpointError):
        load(tmp_path / "own.json")


def test_an_unknown_name_is_told() -> None:
    with pytest.raises(CheckpointError, match=r"no '__class__'; it has cfg, cfg_schedule"):
        recipe_from_dict(changed(HOSTILE["an unknown name"]))


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"other\.json"):
        marche_fx.load_recipe(tmp_path / "other.json")
    with pytest.raises(CheckpointError):
        marche_fx.load_recipe(tmp_path)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
)


@given(st.data(), JSON)
def test_any_value_in_any_place_gives_a_recipe_or_a_named_error(data: st.DataObject, value: Any) -> None:
    values = json.loads(json.dumps(recipe_to_dict(SAMPLE)))
    place = data.draw(st.sampled_from([values, *(values[name] for name in ("refresh", "denoising", "reuse"))]))
    place[data.draw(st.sampled_from(sorted(place)))] = value
    with suppress(CheckpointError):
        assert isinstance(recipe_from_dict(values), Recipe)

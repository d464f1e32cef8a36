"""What is drawn into the folder of a front."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from marche_fx import ArgumentError, HeadReuse, Recipe, SelectiveRefresh, save_recipe
from marche_fx.evaluate import generation
from marche_fx.evaluate.draws import batch_draws
from marche_fx.evaluate.fronts.draw import draw, open_front, ways_of
from marche_fx.evaluate.generation import Models
from marche_fx.evaluate.points import Point
from marche_fx.models.generation import Draws, Generation
from tests.evaluate.fronts.small import SETTINGS, latents, task
from tests.evaluate.tiny import silent

WAYS = ("exact@4", "exact@2")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ways of batches that are drawn, in their order."""
    found: list[str] = []
    original = generation.Models.generate

    def generate(self: Models, point: Point, draws: Draws) -> Generation:
        found.append(point.spec)
        return original(self, point, draws)

    monkeypatch.setattr(generation.Models, "generate", generate)
    return found


def test_what_is_there_is_not_drawn_again_and_ways_and_images_are_added(tmp_path: Path, drawn: list[str]) -> None:
    own = task()
    ways = ways_of(WAYS, own)
    folder = open_front(tmp_path, ways, SETTINGS, own)
    draw(folder, ways, SETTINGS, own, silent())
    assert drawn == ["exact@4", "exact@2"] * 2, "ways take turns"
    first = folder.read_batch(ways[0], 0).features
    drawn.clear()
    more, settings = ways_of([*WAYS, "disa@4"], own), replace(SETTINGS, images=9)
    folder = open_front(tmp_path, more, settings, own)
    folder.batch_file(ways[1], 1).unlink()
    draw(folder, more, settings, own, silent())
    assert drawn == ["disa@4", "exact@2", "disa@4", "exact@4", "exact@2", "disa@4"]
    assert torch.equal(folder.read_batch(ways[0], 0).features, first)


def test_images_that_are_no_whole_batches_and_other_settings_are_refused(tmp_path: Path) -> None:
    own = task()
    ways = ways_of(WAYS, own)
    with pytest.raises(ArgumentError, match="7 images are no whole number of batches of 3"):
        open_front(tmp_path, ways, replace(SETTINGS, images=7), own)
    open_front(tmp_path, ways, SETTINGS, own)
    with pytest.raises(ArgumentError, match=r"cfg was 2\.0 and is 3\.0"):
        open_front(tmp_path, ways, replace(SETTINGS, cfg=3.0), own)
    with pytest.raises(ArgumentError, match="there is no way to draw"):
        ways_of([], own)


def test_a_recipe_is_a_way_by_its_file(tmp_path: Path) -> None:
    recipe = Recipe(SelectiveRefresh(0.3), reuse=HeadReuse(guidance=2), steps=3)
    save_recipe(recipe, tmp_path / "own.json")
    own = task()
    (way,) = ways_of([f"recipe:{tmp_path}/own.json"] * 2, own)
    assert (way.recipe, way.steps, way.kind) == (recipe, 3, "recipe-own")


def test_latents_are_decoded_before_they_are_judged_and_labels_are_what_the_judge_knows(tmp_path: Path) -> None:
    own, plain = latents(), task()
    (way,) = ways_of(["exact@4"], own)
    folder = open_front(tmp_path, [way], SETTINGS, own)
    draw(folder, [way], SETTINGS, own, silent())
    assert folder.read_batch(way, 0).labels.tolist() == [2, 2, 8]
    assert own.labels is not None
    draws = batch_draws(own.mar, SETTINGS, 1, 0, own.labels)
    assert draws.labels.tolist() == [7, 7, 1]
    with torch.inference_mode():
        images = Models(plain, SETTINGS).model.sample_tokens(
            3, 4, 2.0, labels=draws.labels, temperature=1.0, orders=draws.orders, noise=draws.noise
        )
        assert images.abs().max() > 1, "or clipping would not show"
        expected = own.judge.features(images / 2)
    torch.testing.assert_close(folder.read_batch(way, 0).features, expected)

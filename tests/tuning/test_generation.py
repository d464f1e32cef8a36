"""The search for a recipe, where the right answer is known."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import marche_fx
from marche_fx import (
    ArgumentError,
    CheckpointError,
    Denoising,
    FullRefresh,
    HeadReuse,
    Ingredients,
    Recipe,
    SelectiveRefresh,
    TuningError,
    tune_recipe,
)
from marche_fx.models import MAR
from marche_fx.recipes import structure_of
from marche_fx.reporting.tables import as_text
from marche_fx.tuning import generation, head_stage, image_stage, policy_stage
from tests.evaluate.tiny import tiny_garments
from tests.networks import MaskedTextModel

BASE = Recipe(steps=8, cfg=2.0)
HALF, FEW = SelectiveRefresh(0.5, warmup=1), SelectiveRefresh(0.0, warmup=1)
INGREDIENTS = Ingredients(
    steps=(4, 2), refresh=(HALF, FEW), denoising=(Denoising(3), Denoising(2)), orders=("halton", "raster")
)
SEEDS, UNSEEN = range(8), range(100, 108)


@dataclass
class Known:
    """A generation whose cost and loss are sums of what its parts are given, in place of images and of time."""

    now: float = 0.0
    runs: int = 0
    stop_after: float = float("inf")

    def cost(self, recipe: Recipe) -> float:
        share = {FullRefresh(): 1.0, HALF: 0.5, FEW: 0.25}[recipe.refresh]
        head = 5 if recipe.denoising is None else recipe.denoising.steps or 0
        return share * (recipe.steps or 8) + 2 * head

    def loss(self, recipe: Recipe) -> float:
        refresh = {FullRefresh(): 0.0, HALF: 0.1, FEW: 0.9}[recipe.refresh]
        head = 0.0 if recipe.denoising is None else {3: 0.2, 2: 0.8}[recipe.denoising.steps or 0]
        order = {None: 0.0, "halton": -0.15, "raster": 0.5}[recipe.order]
        return refresh + head + order + {8: 0.0, 4: 0.2, 2: 0.7}[recipe.steps or 8]

    def generate(self, model: nn.Module, recipe: Recipe, seed: int) -> Tensor:
        assert seed in (*SEEDS, *UNSEEN)
        self.runs += 1
        if self.runs > self.stop_after:
            raise KeyboardInterrupt
        self.now += self.cost(recipe)
        # What all recipes share on a seed is larger than what tells them apart.
        return torch.tensor([10.0 * seed + self.loss(recipe)], dtype=torch.float64)

    def mark(self) -> float:
        return self.now

    def settle(self) -> None:
        pass

    def seconds(self, begin: float, end: float) -> float:
        return end - begin


def search(known: Known, monkeypatch: pytest.MonkeyPatch, max_loss: float, **others: Any) -> marche_fx.TunedRecipe:
    monkeypatch.setattr(generation, "clock_for", lambda *_, **__: known)
    given: dict[str, Any] = {"ingredients": INGREDIENTS, "seeds": SEEDS, "unseen": UNSEEN, "compile": False, **others}
    return tune_recipe(tiny_garments(), known.generate, float, max_loss=max_loss, base=BASE, **given)


def every_recipe() -> list[Recipe]:
    heads = (None, Denoising(3), Denoising(2))
    mixed = itertools.product((FullRefresh(), HALF, FEW), heads, (8, 4, 2), (None, "halton", "raster"))
    return [replace(BASE, refresh=own, denoising=head, steps=steps, order=order) for own, head, steps, order in mixed]


@pytest.mark.parametrize("bound", [0.02, 0.16, 0.31, 1.01])
def test_the_cheapest_recipe_within_the_bound_is_found(bound: float, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known()
    found = search(known, monkeypatch, bound)
    within = [own for own in every_recipe() if known.loss(own) <= bound]
    expected = min(map(known.cost, within))
    assert replace(found.recipe, model=None) in within
    assert known.cost(found.recipe) == expected
    assert found.recipe.model == structure_of(tiny_garments())
    assert found.recipe.figures["speedup"] == pytest.approx(known.cost(BASE) / expected, abs=1e-3)
    assert found.recipe.figures["loss"] == pytest.approx(known.loss(found.recipe), abs=1e-3)
    # An exhaustive search would have made all of them on all seeds.
    assert known.runs < len(every_recipe()) * (len(SEEDS) + len(UNSEEN)) / 2


def test_the_front_and_other_bounds_come_along(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(Known(), monkeypatch, 0.3)
    front = found.front
    assert [own.speedup for own in front] == sorted((own.speedup for own in front), reverse=True)
    assert [own.loss.estimate for own in front] == sorted((own.loss.estimate for own in front), reverse=True)
    looser = found.within(1.0)
    assert looser.figures["speedup"] >= found.recipe.figures["speedup"]
    with pytest.raises(TuningError, match="-9"):
        found.within(-9.0)
    printed = as_text(found)
    assert "times faster" in printed
    assert "HALF" not in printed


class Deceptive(Known):
    """Every recipe but the original's own is better on seeds of the search, and worse on others."""

    seed = 0

    def generate(self, model: nn.Module, recipe: Recipe, seed: int) -> Tensor:
        self.seed = seed
        return super().generate(model, recipe, seed)

    def loss(self, recipe: Recipe) -> float:
        is_own = replace(recipe, model=None) == BASE
        return 0.0 if is_own else super().loss(recipe) + (-3 if self.seed in SEEDS else 3)


def test_a_bound_that_only_the_original_meets_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(Deceptive(), monkeypatch, 1e-6)
    assert all(own.loss.low > 2 for own in found.outcomes[:-1]), "what the search chose does not hold"
    assert replace(found.recipe, model=None) == BASE
    assert found.recipe.figures["speedup"] == 1


def test_a_bound_that_nothing_meets_is_an_error_that_says_the_least(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TuningError, match=r"no recipe loses -1 at most.*0"):
        search(Known(), monkeypatch, -1.0)


def test_a_search_that_was_ended_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = Known()
    expected = search(whole, monkeypatch, 0.16)
    left, runs = tmp_path / "own", 0
    for stop_after in (1, 40, 41, 90):
        stopped = Known(stop_after=stop_after)
        with pytest.raises(KeyboardInterrupt):
            search(stopped, monkeypatch, 0.16, out=left)
        runs += stopped.runs
    last = Known()
    assert search(last, monkeypatch, 0.16, out=left) == expected
    assert last.runs < whole.runs - 90, "what was measured is not measured again"
    again = Known()
    assert search(again, monkeypatch, 0.16, out=left) == expected
    assert again.runs == 1, "but for the original on one seed, to see that it is the same"


def test_a_folder_of_another_generation_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    search(Known(), monkeypatch, 1.0, out=tmp_path, ingredients=Ingredients(steps=(4,)))

    class Other(Known):
        def generate(self, model: nn.Module, recipe: Recipe, seed: int) -> Tensor:
            return super().generate(model, recipe, seed) + 1

    with pytest.raises(CheckpointError, match="images of the original"):
        search(Other(), monkeypatch, 1.0, out=tmp_path, ingredients=Ingredients(steps=(4,)))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"seeds": (1,)}, "2 or more"),
        ({"seeds": (1, 2), "unseen": (2, 3)}, "none in common"),
        ({"refresh": FEW}, "makes the recipes itself"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    arguments: dict[str, Any], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArgumentError, match=word):
        search(Known(), monkeypatch, 1.0, **arguments)


def generate(model: nn.Module, recipe: Recipe, seed: int) -> Tensor:
    assert isinstance(model, MAR)
    generator = torch.Generator().manual_seed(seed)
    told = recipe.arguments(model, 4, generator)
    return model.sample_tokens(4, labels=torch.arange(4), generator=generator, **told)


@pytest.mark.slow
def test_a_model_is_searched_stage_by_stage(capsys: pytest.CaptureFixture[str]) -> None:
    policies = [SelectiveRefresh(share, warmup=1) for share in (0.0, 0.2, 0.5)]
    many = Ingredients(
        steps=(4,),
        refresh=policies,
        denoising=(Denoising(2), Denoising(3), Denoising(3, "quadratic")),
        reuse=(HeadReuse(guidance=2),),
    )
    own = tune_recipe(
        tiny_garments(),
        generate,
        lambda images: float(images.abs().mean()),
        max_loss=1e9,
        base=BASE,
        ingredients=many,
        seeds=range(4),
        unseen=range(10, 13),
        compile=False,
        progress=True,
    )
    assert own.recipe.steps in (8, 4)
    assert len(own.outcomes) <= image_stage.FINALISTS
    printed = capsys.readouterr().out
    drifts = [line for line in printed.splitlines() if line.startswith("drift")]
    heads = [line for line in printed.splitlines() if line.startswith("head")]
    assert len(drifts) == 4 + policy_stage.POLICIES
    assert len(heads) == 8 + 4 + head_stage.HEADS
    assert any("drift 0.0000" in line and "FullRefresh" in line for line in drifts)
    loss = [own.loss for own in own.outcomes if own.recipe == replace(BASE, model=own.recipe.model)]
    assert all(abs(own.estimate) < 1e-3 for own in loss), "the original's own recipe loses nothing"


@pytest.mark.slow
def test_a_loop_of_ones_own_is_searched_by_what_it_is_told() -> None:
    torch.manual_seed(0)
    model = MaskedTextModel(20, 16, 2).eval()
    told: list[tuple[bool, dict[str, Any]]] = []

    def fill_in(given: nn.Module, recipe: Recipe, seed: int) -> Tensor:
        told.append((given is model, recipe.told))
        generator = torch.Generator().manual_seed(seed)
        ids = torch.zeros(2, 20, dtype=torch.long)
        ids[:, :2] = torch.randint(1, 7, (2, 2), generator=generator)
        per_step = 16 // recipe.told["steps"]
        with nullcontext() if given is model else marche_fx.decoding(given):
            for first in range(2, 18, per_step):
                place = slice(first, first + per_step)
                ids[:, place] = given(ids, torch.zeros(2))[:, place].argmax(-1) % 6 + 1
        return ids

    found = tune_recipe(
        model,
        fill_in,
        lambda ids: float(ids.float().mean()),
        max_loss=1e3,
        base=Recipe(steps=8),
        ingredients=Ingredients(steps=(4, 2), refresh=(SelectiveRefresh(0.2, warmup=1),)),
        seeds=range(4),
        unseen=range(10, 13),
        compile=False,
    )
    assert found.recipe.steps in (8, 4, 2)
    assert {own["steps"] for is_original, own in told if not is_original} == {8, 4, 2}
    assert {own["steps"] for is_original, own in told if is_original} == {8}
    assert all(set(own) == {"steps"} for _, own in told), "no order for a loop that is not known to take one"


KILLED = """
import os, sys
sys.path.insert(0, {root!r})
from tests.tuning import test_generation as own
known = own.Known()
def generate(model, recipe, seed):
    if known.runs == {after}:
        os._exit(9)
    return known.generate(model, recipe, seed)
own.generation.clock_for = lambda *_, **__: known
found = own.tune_recipe(own.tiny_garments(), generate, float, max_loss=0.16, base=own.BASE,
    ingredients=own.INGREDIENTS, seeds=own.SEEDS, unseen=own.UNSEEN, compile=False, out={out!r})
print(known.runs, found.recipe)
"""


@pytest.mark.slow
def test_a_search_that_was_killed_goes_on_in_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Known()
    search(whole, monkeypatch, 0.16)

    def run(after: float) -> subprocess.CompletedProcess[str]:
        program = KILLED.format(root=os.getcwd(), after=after, out=str(tmp_path))
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert run(60).returncode == 9
    done = run(-1)
    assert done.returncode == 0, done.stderr
    runs, _, recipe = done.stdout.partition(" ")
    again = run(-1)
    assert again.stdout == f"1 {recipe}"
    assert 1 < int(runs) < whole.runs - 50

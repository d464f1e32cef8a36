"""A recipe as `transform` takes it."""

from __future__ import annotations

import dataclasses
import warnings
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
    Interpolate,
    Recipe,
    RecipeError,
    SelectiveRefresh,
    transform,
)
from marche_fx.api.optimization import optimization_of
from marche_fx.models import MAR
from marche_fx.recipes import structure_of
from tests.models.tiny import tiny_mar
from tests.networks import Transformer

LABELS = torch.tensor([0, 2])
OWN = Recipe(SelectiveRefresh(0.2, warmup=1), Denoising(4, "quadratic"), HeadReuse(Interpolate(3), guidance=2))
TOLD = dataclasses.replace(OWN, steps=5, order="halton", counts="linear", cfg=2.0, temperature=0.9)


def decode(model: nn.Module, seed: int = 0, **arguments: Any) -> Tensor:
    assert isinstance(model, MAR)
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        return model.sample_tokens(2, labels=LABELS, generator=generator, **arguments)


def test_a_recipe_does_what_its_parts_do_and_tells_the_loop_the_rest() -> None:
    mar = tiny_mar()
    whole = transform(mar, recipe=TOLD, compile=False)
    parts = transform(mar, refresh=OWN.refresh, denoising=OWN.denoising, reuse=OWN.reuse, compile=False)
    for _ in range(2):
        # The second time the head's denoiser is captured in both.
        generator = torch.Generator().manual_seed(0)
        told = TOLD.arguments(mar, 2, generator)
        with torch.inference_mode():
            expected = parts.sample_tokens(2, labels=LABELS, generator=generator, **told)
        assert torch.equal(decode(whole), expected)
    session = optimization_of(whole).last_session
    assert session is not None
    assert session.decoding_steps == 5


@pytest.mark.parametrize("name", ["refresh", "denoising", "reuse"])
def test_what_a_recipe_says_is_not_said_beside_it(name: str) -> None:
    with pytest.raises(ArgumentError, match=f"says {name} already"):
        transform(tiny_mar(), recipe=OWN, **{name: getattr(OWN, name)})


def test_what_a_caller_says_holds_and_is_told_once() -> None:
    mar = tiny_mar()
    recipe = dataclasses.replace(TOLD, reuse=None)
    whole = transform(mar, recipe=recipe, compile=False)
    with pytest.warns(UserWarning, match="num_iter=3, which holds") as told:
        found, _ = (decode(whole, num_iter=3) for _ in range(2))
    assert len([own for own in told if "num_iter" in str(own.message)]) == 1
    fewer = transform(mar, recipe=dataclasses.replace(recipe, steps=3), compile=False)
    assert torch.equal(found, decode(fewer)), "counts are for the steps of the call"


def test_a_caller_who_says_the_same_is_not_told() -> None:
    whole = transform(tiny_mar(), recipe=dataclasses.replace(TOLD, order=None, reuse=None), compile=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*which holds")
        decode(whole, num_iter=5, cfg=2.0, temperature=0.9)


def test_transform_draws_no_random_number() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    transform(tiny_mar_seeded(), recipe=TOLD, compile=False)
    assert torch.equal(torch.rand(1), expected)


def tiny_mar_seeded() -> MAR:
    with torch.random.fork_rng():
        return tiny_mar()


def test_a_recipe_of_another_model_is_refused() -> None:
    mar, other = tiny_mar(), tiny_mar(diffloss_w=24)
    of_other = dataclasses.replace(OWN, model=structure_of(other))
    with pytest.raises(RecipeError, match="other modules or shapes"):
        transform(mar, recipe=of_other)
    assert transform(other, recipe=of_other, compile=False) is not other
    assert transform(mar, recipe=dataclasses.replace(of_other, model=None), compile=False) is not mar


def test_a_file_is_taken_by_its_path(tmp_path: Path) -> None:
    mar, path, recipe = tiny_mar(), tmp_path / "own.json", dataclasses.replace(TOLD, reuse=None)
    marche_fx.save_recipe(recipe, path)
    expected = decode(transform(mar, recipe=recipe, compile=False))
    assert torch.equal(decode(transform(mar, recipe=path, compile=False)), expected)
    assert torch.equal(decode(transform(mar, recipe=str(path), compile=False)), expected)
    with pytest.raises(CheckpointError):
        transform(mar, recipe=str(tmp_path / "missing.json"))


def test_exact_is_known_for_any_model_and_others_for_their_own() -> None:
    mar = tiny_mar()
    exact = transform(mar, recipe="exact", compile=False)
    assert torch.allclose(decode(exact, num_iter=3), decode(mar, num_iter=3))
    assert not marche_fx.report(exact).to_dict()["notes"][1:], "nothing is to be told to a loop"
    transform(Transformer(8, 8, 2).eval(), recipe="exact", compile=False)
    with pytest.raises(RecipeError, match="of the bundled MARs of garments and emoji, and MAR is another"):
        transform(mar, recipe="fast")
    with pytest.raises(RecipeError, match="unknown recipe 'quick'; there are exact, balanced, fast"):
        transform(mar, recipe="quick")
    wrong: Any = 3
    with pytest.raises(ArgumentError, match="Recipe"):
        transform(mar, recipe=wrong)


class OfficialLoop(MAR):
    """A loop that takes no orders and no counts, as the official one."""

    def sample_tokens(self, bsz: int, num_iter: int = 64, cfg: float = 1.0, **_: Any) -> Tensor:  # type: ignore[override]
        raise NotImplementedError


def test_a_loop_that_cannot_be_told_is_refused_before_it_runs() -> None:
    mar = tiny_mar()
    mar.__class__ = OfficialLoop
    with pytest.raises(RecipeError, match="sample_tokens takes no counts and no orders and no temperature"):
        transform(mar, recipe=TOLD)
    fewer = dataclasses.replace(TOLD, order=None, counts=None, temperature=None)
    assert transform(mar, recipe=fewer, compile=False) is not mar


def test_what_the_schedule_and_the_grid_have_not_is_refused() -> None:
    mar = tiny_mar()
    with pytest.raises(ArgumentError, match="1001"):
        transform(mar, recipe=Recipe(denoising=Denoising(1001)))
    with pytest.raises(RecipeError, match="17 steps, and MAR has 16 tokens"):
        transform(mar, recipe=Recipe(steps=17))


def test_a_report_says_what_a_loop_of_ones_own_is_to_be_told() -> None:
    recipe = Recipe(FullRefresh(), steps=7, order="halton")
    notes = marche_fx.report(transform(Transformer(8, 8, 2).eval(), recipe=recipe, compile=False)).notes
    assert str(recipe) in notes
    assert any("your loop is to be told steps=7, order='halton'" in own for own in notes)
    known = marche_fx.report(transform(tiny_mar(), recipe=recipe, compile=False)).notes
    assert str(recipe) in known
    assert not any("your loop" in own for own in known), "MAR's loop is told"

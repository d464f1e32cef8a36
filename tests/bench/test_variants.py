"""The words of variants."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from marche_fx import (
    Denoising,
    DriftRefresh,
    FullRefresh,
    HeadReuse,
    InterleavedRefresh,
    Recipe,
    RecipeError,
    SelectiveRefresh,
    StalenessRefresh,
    save_head_reuse,
    save_policy,
    save_recipe,
)
from marche_fx.bench import Settings, Variant, parse_variants, user_workload
from marche_fx.bench.candidates import make_candidates
from marche_fx.bench.command import Wanted
from marche_fx.bench.variants import HeadChoice, default_words
from marche_fx.errors import ArgumentError
from marche_fx.head.policy import PRESETS
from marche_fx.models.presets import SIZES
from marche_fx.recipes.presets import bundled


def parse(*words: str, refresh: tuple[float, ...] = (0.1,)) -> list[Variant]:
    return parse_variants(words, refresh)


def test_ours_stands_for_one_variant_at_each_share() -> None:
    ours = parse("ours", refresh=(0.0, 0.25, 1.0))
    assert [own.label for own in ours] == ["ours 0%", "ours 25%", "ours 100%"]
    assert [own.policies for own in ours] == [SelectiveRefresh(0.0), SelectiveRefresh(0.25), FullRefresh()]
    assert all(own.compile for own in ours)
    assert [own.has_state for own in ours] == [True, True, False]


def test_eager_behind_a_word_means_without_compilation() -> None:
    (ours,) = parse("ours:0.05-eager")
    assert (ours.name, ours.refresh, ours.compile) == ("ours-eager", 0.05, False)
    (recap,) = parse("recap-eager")
    assert (recap.policies_in(64), recap.compile) == (InterleavedRefresh(2, warmup=33), False)


def test_originals_have_no_policy_and_no_state() -> None:
    originals = parse("eager", "compiled", "fewer:32")
    assert [own.is_original for own in originals] == [True] * 3
    assert [own.compile for own in originals] == [False, True, False]
    assert [own.steps for own in originals] == [None, None, 32]
    assert not any(own.has_state for own in originals)


def test_lazymar_has_a_policy_for_each_half() -> None:
    (own,) = parse("lazymar")
    assert own.policies_in(64) == {
        "forward_mae_encoder": SelectiveRefresh(0.0, warmup=5, every=9),
        "forward_mae_decoder": DriftRefresh(0.1, warmup=5, every=9, exact_sites=3),
    }


def test_a_head_and_fewer_steps_are_options_of_a_policy(tmp_path: Path) -> None:
    save_head_reuse(HeadReuse(guidance=2), tmp_path / "own.json")
    own, exact, file = parse(
        "ours:0.05+reuse=balanced+denoising=quadratic:10+steps=32",
        "ours:1-eager+reuse=exact",
        f"oldest:0.2+reuse={tmp_path}/own.json",
    )
    assert own.label == "ours+reuse=balanced+denoising=quadratic:10+steps=32 5%"
    assert own.head == HeadChoice(denoising=Denoising(steps=10, spacing="quadratic"), reuse=PRESETS["balanced"])
    assert (own.steps, own.compile, own.policies) == (32, True, SelectiveRefresh(0.05))
    assert (exact.label, exact.head, exact.compile) == (
        "ours-eager+reuse=exact 100%",
        HeadChoice(reuse=HeadReuse()),
        False,
    )
    assert file.head.reuse == HeadReuse(guidance=2)


def test_rivals_have_heads_of_their_own() -> None:
    recap, lazymar, disa, emigm = parse("recap", "lazymar-eager", "disa", "emigm")
    assert [own.head.rival for own in (recap, lazymar, disa, emigm)] == ["recap", "lazymar", "disa", "emigm"]
    assert [own.is_original for own in (recap, lazymar, disa, emigm)] == [False, False, True, True]
    assert [own.is_guided_in_part for own in (disa, emigm)] == [False, True]


def test_variants_that_differ_in_the_head_share_a_transformer() -> None:
    eager, disa, ours, other, same, fewer, emigm = parse(
        *("eager", "disa", "ours:0.1", "ours:0.1+reuse=exact", "selective:0.1", "ours:0.1+steps=8", "emigm")
    )
    assert eager.transformer == disa.transformer
    assert ours.transformer == other.transformer == same.transformer
    transformers = [own.transformer for own in (eager, ours, fewer, emigm)]
    assert all(one != two for one, two in itertools.combinations(transformers, 2))


def test_a_head_that_nobody_knows_is_refused() -> None:
    workload = user_workload("tests.bench.models:text")
    for word in ("disa", "ours:0.1+denoising=10", "ours:0.1+reuse=exact"):
        with pytest.raises(ArgumentError, match=r"says how a head draws tokens, and the head of .*:text is not known"):
            make_candidates(workload, parse(word), Settings())
    with pytest.raises(ArgumentError, match="a model whose schedule is known"):
        make_candidates(workload, parse("ours:0.1+steps=4"), Settings())


def test_policies_of_evaluate_are_variants(tmp_path: Path) -> None:
    save_policy(StalenessRefresh(0.2), tmp_path / "own.json")
    found = parse("oldest:0.1", "periodic:8", "periodic:4", "nothing", str(tmp_path / "own.json"))
    assert [own.label for own in found] == [
        *("oldest 10%", "periodic:8", "periodic:4", "nothing", str(tmp_path / "own.json"))
    ]
    assert found[-1].policies == StalenessRefresh(0.2)


def test_a_recipe_is_a_variant_with_its_head_and_its_steps(tmp_path: Path) -> None:
    recipe = Recipe(SelectiveRefresh(0.3), Denoising(8), HeadReuse(guidance=2), steps=12, model="another")
    path = tmp_path / "own.json"
    save_recipe(recipe, path)
    own, eager = parse(f"recipe:{path}", f"recipe:{path}-eager")
    assert (own.policies, own.steps, own.compile) == (recipe.refresh, 12, True)
    assert own.head == HeadChoice(denoising=recipe.denoising, reuse=recipe.reuse)
    assert eager == replace(own, name=f"recipe:{path}-eager", compile=False)
    (fast,) = parse("recipe:fast")
    (of_emoji,) = Wanted(size="emoji", words=("recipe:fast",)).variants(Settings())
    assert of_emoji.head.denoising == bundled("fast", "emoji").denoising
    assert (fast.steps, of_emoji.steps) == (12, 32)
    assert fast.head.denoising == bundled("fast").denoising
    with pytest.raises(RecipeError, match="unknown recipe 'quick'"):
        parse("recipe:quick")
    save_recipe(replace(recipe, counts="linear"), path)
    with pytest.raises(ArgumentError, match="along a cosine"):
        parse(f"recipe:{path}")


def test_a_variant_named_twice_runs_once() -> None:
    assert len(parse("ours", "ours:0.1", "eager", "eager")) == 2


def test_half_the_steps_are_compared_where_they_can_be_chosen() -> None:
    assert default_words(64)[-1] == "fewer:32"
    assert default_words(None) == default_words(1)
    assert len(parse(*default_words(64), refresh=(0.05, 0.1, 1.0))) == 7


@pytest.mark.parametrize("word", ["theirs", "ours@20", "eager-eager", "selective:0.1@20", "exact", "selective:0.1#2"])
def test_an_unknown_variant_lists_those_that_exist(word: str) -> None:
    with pytest.raises(
        ArgumentError,
        match=r"those that exist are eager, compiled and reduce-.*recap, lazymar, .*disa and emigm .*fewer:STEPS",
    ):
        parse(word)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("fewer", "lacks its number of decoding steps"),
        ("fewer:0", "lacks its number of decoding steps"),
        ("ours:much", "lacks its share"),
        ("ours:2", "fraction must lie in 0..1"),
        ("oldest:x", "lacks a number"),
        ("recap:2", "there is no variant"),
        ("lazymar+reuse=exact", "lazymar has a head of its own, which takes no reuse=exact"),
        ("ours:0.1+reuse=all", "unknown head preset 'all'"),
        ("ours:0.1+denoising=fast", "'fast' is no denoising"),
        ("ours:0.1+steps=x", "lacks its number of decoding steps"),
        ("disa-eager", "there is no variant"),
    ],
)
def test_numbers_are_checked(word: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        parse(word)


def test_every_size_is_known() -> None:
    assert set(SIZES) == {"fashion", "emoji", "base", "large", "huge"}

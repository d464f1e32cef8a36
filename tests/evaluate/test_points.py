"""Points written as words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marche_fx import (
    ArgumentError,
    CheckpointError,
    DriftRefresh,
    InterleavedRefresh,
    NeighbourRefresh,
    RandomRefresh,
    RefreshPolicy,
    SelectiveRefresh,
    StalenessRefresh,
    save_policy,
)
from marche_fx.denoising import parse_denoising
from marche_fx.evaluate import parse_point, parse_points
from marche_fx.evaluate.heads import HeadChoice
from marche_fx.head.policy import PRESETS as HEAD_PRESETS
from marche_fx.refresh import PRESETS

MEANINGS = {
    "exact": None,
    "nothing": SelectiveRefresh(0.0),
    "selective:0.1": SelectiveRefresh(0.1),
    "marche:0.1": SelectiveRefresh(0.1, age=False, sites="all"),
    "random:0.2": RandomRefresh(0.2),
    "oldest:0.05": StalenessRefresh(0.05),
    "drift:0.1": DriftRefresh(0.1),
    "neighbour:0.1": NeighbourRefresh(0.1),
    "interleaved:2": InterleavedRefresh(2),
    "periodic:8": SelectiveRefresh(0.0, every=8),
}


@pytest.mark.parametrize(("word", "policy"), MEANINGS.items())
def test_a_word_means_a_policy(word: str, policy: RefreshPolicy | None) -> None:
    point = parse_point(word)
    assert point.policy == policy
    assert point.spec == word
    assert (point.steps, point.seeds) == (None, 1)


def test_steps_and_seeds_come_behind_any_word() -> None:
    point = parse_point("selective:0.1@20#2")
    assert (point.policy, point.steps, point.seeds) == (SelectiveRefresh(0.1), 20, 2)
    assert point.spec == "selective:0.1@20#2"
    assert [parse_point(word).is_exact for word in ("exact", "exact#2", "exact@20", "nothing")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_file_of_a_policy_is_a_point_whose_folder_changes_with_its_content(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    save_policy(StalenessRefresh(0.3), path)
    point = parse_point(f"{path}@8")
    assert (point.policy, point.kind, point.label) == (StalenessRefresh(0.3), "mine", "mine@8")
    save_policy(StalenessRefresh(0.4), path)
    assert parse_point(f"{path}@8").folder != point.folder


def test_each_point_has_a_folder_of_its_own_and_is_taken_once() -> None:
    words = ["exact", "exact@2", "exact#2", "exact@2#2", "exact@22", "random:0.1", "random:0.1#2"]
    assert len({parse_point(word).folder for word in words}) == len(words)
    assert [point.spec for point in parse_points([*words, "exact", "exact#1"])] == words


@pytest.mark.parametrize("word", ["selectiv:0.1", "nothing:3", "", "missing"])
def test_an_unknown_word_is_refused_with_those_that_exist(word: str) -> None:
    known = r"exact, nothing, default, balanced, fast, selective:SHARE.*periodic:STEPS, disa, recap, lazymar.*JSON"
    with pytest.raises(ArgumentError, match=known):
        parse_point(word)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("selective", "lacks a number"),
        ("periodic:0.5", "lacks a number"),
        ("random:2", "random:2: fraction must lie in 0..1"),
        ("interleaved:0", "period must be a whole number of at least 1"),
        ("exact@0", "counted from 1"),
        ("exact#0", "counted from 1"),
    ],
)
def test_a_number_that_does_not_fit_is_refused(word: str, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        parse_point(word)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"gone\.json"):
        parse_point("gone.json")


def test_a_way_says_how_the_head_draws() -> None:
    point = parse_point("balanced@64#2+denoising=dpm++2m:logsnr:8+reuse=lazymar")
    assert (point.policy, point.steps, point.seeds) == (PRESETS["balanced"], 64, 2)
    assert point.head == HeadChoice(denoising=parse_denoising("dpm++2m:logsnr:8"), reuse=HEAD_PRESETS["lazymar"])
    assert point.spec == "balanced@64#2+denoising=dpm++2m:logsnr:8+reuse=lazymar"
    assert parse_point("default@8").policy == SelectiveRefresh()
    assert not parse_point("exact+denoising=quadratic:2").is_exact


def test_rivals_have_a_schedule_for_each_number_of_steps_and_a_head() -> None:
    recap, lazymar, disa = map(parse_point, ("recap@32", "lazymar", "disa@16"))
    assert [own.head.rival for own in (recap, lazymar, disa)] == ["recap", "lazymar", "disa"]
    assert recap.policies_in(32) == InterleavedRefresh(2, warmup=17)
    assert recap.policies_in(8) == InterleavedRefresh(2, warmup=5)
    schedule = lazymar.policies_in(32)
    assert isinstance(schedule, dict)
    assert set(schedule) == {"forward_mae_encoder", "forward_mae_decoder"}
    assert disa.policies_in(16) is None
    assert not any(own.is_file or own.is_exact for own in (recap, lazymar, disa))


def test_ways_that_differ_in_the_head_alone_have_folders_of_their_own() -> None:
    words = [
        "exact@8",
        "exact@8+denoising=quadratic:2",
        "exact@8+denoising=quadratic:3",
        "exact@8+reuse=exact",
        "disa@8",
    ]
    points = parse_points(words)
    assert len({point.folder for point in points}) == len(points) == len(words)
    values = [json.dumps(point.policy_values) for point in points]
    assert len(set(values)) == len(words)


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("disa@8+denoising=quadratic:2", "disa has a head of its own"),
        ("exact+denoising=fast", "'fast' is no denoising"),
        ("exact+reuse=all", "unknown head preset 'all'"),
        ("emigm@16", "there is no policy 'emigm'"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(word: str, reason: str) -> None:
    with pytest.raises(ArgumentError, match=reason):
        parse_point(word)

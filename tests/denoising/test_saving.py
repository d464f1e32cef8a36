"""Words, values and files of a denoising."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marche_fx import ArgumentError, CheckpointError, Denoising, load_denoising, save_denoising
from marche_fx.denoising import denoising_from_dict, denoising_to_dict, parse_denoising
from marche_fx.denoising.saving import WORDS

counts = st.integers(2, 1000)
shares = st.floats(0, 1, allow_nan=False)


@st.composite
def denoisings(draw: st.DrawFn) -> Denoising:
    anneal = draw(st.none() | st.tuples(counts, counts))
    interval = draw(st.none() | st.tuples(shares, shares).filter(lambda own: own[0] < own[1]))
    return Denoising(
        steps=None if anneal else draw(st.none() | counts),
        spacing=draw(st.sampled_from(["even", "quadratic", "logsnr"])),
        solver=draw(st.sampled_from(["ancestral", "ddim", "dpm++2m"])),
        anneal=anneal,
        clip=draw(st.none() | st.integers(1, 999)),
        guidance=interval,
        decoding_steps=draw(st.none() | counts) if anneal else None,
    )


@given(own=denoisings())
def test_json_gives_back_what_was_written(own: Denoising) -> None:
    assert denoising_from_dict(json.loads(json.dumps(denoising_to_dict(own)))) == own


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    own = Denoising(anneal=(50, 5), clip=950, guidance=(0.1, 0.6))
    save_denoising(own, tmp_path / "own.json")
    assert load_denoising(tmp_path / "own.json") == own
    assert parse_denoising(str(tmp_path / "own.json")) == own


@pytest.mark.parametrize(
    "values",
    [
        [],
        {"steps": 25},
        {"kind": "SelectiveRefresh"},
        {"kind": "Denoising", "speed": 3},
        {"kind": "Denoising", "steps": "25"},
        {"kind": "Denoising", "solver": "euler"},
    ],
)
def test_other_values_are_refused(values: Any) -> None:
    with pytest.raises(CheckpointError, match="Denoising"):
        denoising_from_dict(values)


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot read a denoising"):
        load_denoising(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text('{"kind": "Den')
    with pytest.raises(CheckpointError, match="cannot read a denoising"):
        load_denoising(tmp_path / "cut.json")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("25", Denoising(25)),
        ("quadratic:25", Denoising(25, "quadratic")),
        ("8:logsnr:dpm++2m", Denoising(8, "logsnr", "dpm++2m")),
        ("ddim", Denoising(solver="ddim")),
        ("50-5", Denoising(anneal=(50, 5))),
        ("disa", Denoising(anneal=(50, 5), clip=950)),
    ],
)
def test_a_word_means_a_denoising(word: str, expected: Denoising) -> None:
    assert parse_denoising(word) == expected


@pytest.mark.parametrize("word", ["", "fast", "25:30", "even:quadratic", "quadratic:", "-5", "1.5"])
def test_an_unknown_word_is_refused_with_those_that_exist(word: str) -> None:
    with pytest.raises(ArgumentError, match=r"is no denoising.*disa.*quadratic.*ddim"):
        parse_denoising(word)


def test_a_word_with_a_number_out_of_range_says_so() -> None:
    with pytest.raises(ArgumentError, match="steps must be"):
        parse_denoising("quadratic:1")


def test_words_are_not_one_another() -> None:
    assert len(set(WORDS.values())) == len(WORDS)

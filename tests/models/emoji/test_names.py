import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marche_fx.errors import DatasetError
from marche_fx.models.emoji.names import (
    HELD_OUT,
    Kind,
    family_of,
    is_a_repeat,
    is_held_out,
    read_catalogue,
    sequence_of,
    without_tones,
)

tones = st.sampled_from(["1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"])
people = st.sampled_from(["1f468", "1f469", "1f9d1"])
trades = st.sampled_from(["1f680", "1f33e", "1f52c"])


def test_vendors_that_leave_out_joiners_or_selectors_name_the_same_emoji() -> None:
    assert sequence_of("0023-fe0f-20e3") == sequence_of("23-20e3")
    assert sequence_of("1f468-200d-1f469-200d-1f467") == sequence_of("1f468-1f469-1f467")


@given(people, people, tones, tones, trades)
def test_people_of_one_trade_are_one_family_whatever_their_gender_and_skin(
    one: str, other: str, light: str, dark: str, trade: str
) -> None:
    first, second = sequence_of(f"{one}-{light}-200d-{trade}"), sequence_of(f"{other}-{dark}-200d-{trade}")
    assert family_of(first) == family_of(second)
    assert is_held_out(first) == is_held_out(second)
    assert family_of(first) != family_of(sequence_of(trade))


def test_a_gender_sign_makes_no_family_of_its_own() -> None:
    assert family_of(sequence_of("1f3c3-1f3fd-200d-2640-fe0f")) == family_of(sequence_of("1f3c3"))
    assert family_of(sequence_of("2640-fe0f")) != family_of(sequence_of("2642-fe0f"))


def test_the_share_held_out_is_that_asked_for() -> None:
    found = sum(is_held_out((point,)) for point in range(0x1F300, 0x1F300 + 4000)) / 4000
    assert found == pytest.approx(HELD_OUT, abs=0.02)


def test_couples_of_two_skins_and_runners_turned_round_are_repeats() -> None:
    assert is_a_repeat(sequence_of("1f469-1f3fb-200d-1f91d-200d-1f468-1f3ff"))
    assert not is_a_repeat(sequence_of("1f469-1f3fb-200d-1f91d-200d-1f468-1f3fb"))
    assert is_a_repeat(sequence_of("1f3c3-200d-27a1-fe0f"))
    assert not is_a_repeat(sequence_of("27a1-fe0f"))


def test_a_catalogue_tells_group_and_subgroup(tmp_path: Path) -> None:
    entry = {"unified": "1F469-200D-1F680", "category": "People & Body", "subcategory": "person-role"}
    (tmp_path / "emoji.json").write_text(json.dumps([entry]))
    catalogue = read_catalogue(tmp_path / "emoji.json")
    astronaut = without_tones(sequence_of("1f469-1f3fd-200d-1f680"))
    assert catalogue[astronaut] == Kind("People & Body", "person-role")


@pytest.mark.parametrize("content", ["", "{", "[1]", '[{"unified": "1F600"}]'])
def test_what_is_no_catalogue_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "emoji.json").write_text(content)
    with pytest.raises(DatasetError, match="emoji-datasource"):
        read_catalogue(tmp_path / "emoji.json")


def test_a_name_that_is_no_code_points_is_refused() -> None:
    with pytest.raises(DatasetError, match="'grinning' is not named by code points"):
        sequence_of("grinning")

"""Measurements that outlast a process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from marche_fx import ArgumentError, CheckpointError
from marche_fx.tuning.notebook import KEY_FILE, Measurement, Notebook
from tests.flips import flipped

KEY = {"model": "one", "seeds": [1, 2]}


def never() -> Measurement:
    raise AssertionError("it is known")


def value(number: float) -> Measurement:
    return {"cost": torch.tensor(number, dtype=torch.float64), "many": torch.arange(3)}


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_is_known_is_not_measured_again(tmp_path: Path, is_kept: bool) -> None:
    notes = Notebook(tmp_path / "own" if is_kept else None, KEY)
    assert notes.measured("head", "a", lambda: value(1.0))["cost"] == 1
    assert notes.measured("head", "b", lambda: value(2.0))["cost"] == 2
    assert notes.measured("drift", "a", lambda: value(3.0))["cost"] == 3, "stages have names of their own"
    assert notes.measured("head", "a", never)["cost"] == 1


def test_another_process_goes_on(tmp_path: Path) -> None:
    Notebook(tmp_path, KEY).measured("head", "a", lambda: value(1.0))
    found = Notebook(tmp_path, {"seeds": [1, 2], "model": "one"}).measured("head", "a", never)
    assert found["cost"].dtype == torch.float64
    assert found["many"].tolist() == [0, 1, 2]


def test_a_folder_of_another_search_is_refused_by_what_differs(tmp_path: Path) -> None:
    Notebook(tmp_path, KEY)
    with pytest.raises(CheckpointError, match="not the same seeds"):
        Notebook(tmp_path, {**KEY, "seeds": [1]})
    with pytest.raises(CheckpointError, match="not the same weights"):
        Notebook(tmp_path, {**KEY, "weights": "x"})


def test_a_damaged_measurement_is_made_again_and_a_damaged_key_refused(tmp_path: Path) -> None:
    Notebook(tmp_path, KEY).measured("head", "a", lambda: value(1.0))
    (path,) = tmp_path.glob("head-*.safetensors")
    for _ in flipped(path, 6):
        with pytest.warns(UserWarning, match="is damaged"):
            assert Notebook(tmp_path, KEY).measured("head", "a", lambda: value(5.0))["cost"] == 5
        assert Notebook(tmp_path, KEY).measured("head", "a", never)["cost"] == 5
    for _ in flipped(tmp_path / KEY_FILE, 6):
        with pytest.raises(CheckpointError, match="damaged"):
            Notebook(tmp_path, KEY)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArgumentError, match="cannot be written"):
        Notebook(tmp_path / "file" / "own", KEY)

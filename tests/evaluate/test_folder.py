"""What a folder of results accepts and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from marche_fx import ArgumentError, CheckpointError, SelectiveRefresh
from marche_fx.evaluate.folder import Batch, Drift, Folder
from marche_fx.evaluate.points import parse_point
from marche_fx.evaluate.settings import Settings, identity
from tests.flips import flipped

from .tiny import tiny_garments

MODEL = tiny_garments()
POINT = parse_point("selective:0.1")
BATCH = Batch(
    features=torch.rand(3, 64),
    predicted=torch.tensor([1, 2, 3]),
    labels=torch.tensor([1, 2, 4]),
    images=torch.zeros(2, 1, 28, 28, dtype=torch.uint8),
    seconds=0.1 + 0.2,
    head_seconds=1 / 3,
    flops_ratio=1 / 7,
    run="a",
)


def test_what_was_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    folder = Folder(tmp_path, identity(Settings(), model=MODEL))
    folder.claim(POINT)
    assert not folder.has_batch(POINT, 7)
    folder.write_batch(POINT, 7, BATCH)
    folder.write_drift(POINT, Drift((0.1, 1 / 3), 1 / 7))
    again = Folder(tmp_path, identity(Settings(), model=MODEL))
    assert again.has_batch(POINT, 7)
    found = again.read_batch(POINT, 7)
    for name, value in vars(BATCH).items():
        own = getattr(found, name)
        assert torch.equal(own, value) if isinstance(value, torch.Tensor) else own == value
    assert again.read_drift(POINT) == Drift((0.1, 1 / 3), 1 / 7)
    assert not list(tmp_path.rglob("*.partial"))


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    Folder(tmp_path, identity(Settings(steps=32), model=MODEL))
    with pytest.raises(ArgumentError, match=r"steps was 32 and is 16, cfg was 3.0 and is 1.0\. Choose another --out"):
        Folder(tmp_path, identity(Settings(steps=16, cfg=1.0), model=MODEL))


def test_other_weights_are_refused(tmp_path: Path) -> None:
    Folder(tmp_path, identity(Settings(), model=MODEL))
    other = tiny_garments()
    assert identity(Settings(), model=other) == identity(Settings(), model=MODEL)
    with torch.no_grad():
        other.mask_token[0, 0, 0] += 1e-6
    with pytest.raises(ArgumentError, match="holds results of another evaluation: model was"):
        Folder(tmp_path, identity(Settings(), model=other))


def test_other_settings_of_the_model_are_refused(tmp_path: Path) -> None:
    Folder(tmp_path, identity(Settings(), model=MODEL))
    other = tiny_garments()
    other.diffloss.temperature_of_its_own = 2.0  # type: ignore[assignment]
    with pytest.raises(ArgumentError, match="holds results of another evaluation: model was"):
        Folder(tmp_path, identity(Settings(), model=other))


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Folder(tmp_path, identity(Settings(), model=MODEL))
    monkeypatch.setattr("marche_fx.version.__version__", "9.9")
    with pytest.raises(ArgumentError, match=r"version was \S+ and is 9\.9"):
        Folder(tmp_path, identity(Settings(), model=MODEL))


def test_a_policy_of_the_same_name_with_other_arguments_is_refused(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {})
    folder.claim(POINT)
    folder.claim(POINT)
    with pytest.raises(ArgumentError, match=r"policy was .*'warmup': 3.* and is .*'warmup': 4"):
        folder.claim(replace(POINT, policy=SelectiveRefresh(0.1, warmup=4)))


def test_a_damaged_batch_is_named(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {})
    folder.claim(POINT)
    folder.batch_file(POINT, 0).write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"selective-0\.1/batch-0000\.safetensors is damaged.*Remove it"):
        folder.read_batch(POINT, 0)


def test_every_flipped_bit_of_a_result_is_noticed(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {})
    folder.claim(POINT)
    folder.write_batch(POINT, 0, BATCH)
    folder.write_drift(POINT, Drift((0.1, 1 / 3), 1 / 7))
    for _ in flipped(folder.batch_file(POINT, 0), 300):
        with pytest.warns(UserWarning, match=r"batch-0000\.safetensors is damaged and not used"):
            assert not folder.has_batch(POINT, 0)
    for _ in flipped(folder.drift_file(POINT), 300):
        with pytest.warns(UserWarning, match=r"drift\.json is damaged and not used"):
            assert not folder.has_drift(POINT)
    assert folder.has_batch(POINT, 0)
    assert folder.has_drift(POINT)


def test_settings_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    Folder(tmp_path, {"steps": 3})
    (tmp_path / "settings.json").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match=r"settings\.json cannot be read.*Choose another --out"):
        Folder(tmp_path, {"steps": 3})


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArgumentError, match="cannot be written"):
        Folder(tmp_path / "file", {})


def test_settings_are_kept_as_json(tmp_path: Path) -> None:
    Folder(tmp_path, identity(Settings(images=6), model=MODEL))
    assert json.loads((tmp_path / "settings.json").read_text())["images"] == 6


@pytest.mark.parametrize(("name", "value"), [("images", 1), ("batch", 0), ("steps", 0), ("seed", -1)])
def test_settings_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"{name} must be at least"):
        Settings(**{name: value})

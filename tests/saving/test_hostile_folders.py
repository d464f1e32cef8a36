"""Folders of evaluations, searches and trainings, and checkpoints, in which somebody else put something."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import nn

from marche_fx import ArgumentError, CheckpointError
from marche_fx.errors import TrainingError
from marche_fx.evaluate.folder import OTHERS, SETTINGS_FILE, Batch, Drift, Folder
from marche_fx.evaluate.points import Point
from marche_fx.evaluate.study.lines import Lines
from marche_fx.models import load_checkpoint
from marche_fx.models.training_state import EARLIER_FILE, STATE_FILE, last_state
from marche_fx.refresh import FullRefresh
from marche_fx.saving.files import write_sealed, write_sealed_json
from marche_fx.tuning.notebook import Notebook, numbers


class Payload:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def of_torch(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def compressed(content: bytes) -> bytes:
    """What ``torch.save`` wrote, with a pickle that is a thousand times as large as the archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for own in old.infolist():
            is_pickle = own.filename.endswith("data.pkl")
            new.writestr(own.filename, bytes(50_000_000) if is_pickle else old.read(own))
    return file.getvalue()


def header(text: bytes, rest: bytes = b"") -> bytes:
    return len(text).to_bytes(8, "little") + text + rest


CONTENTS: dict[str, Callable[[Path], bytes]] = {
    "nothing": lambda path: b"\0",
    "a pickle": lambda path: pickle.dumps(Payload(path)),
    "a checkpoint that runs": lambda path: of_torch({"model": Payload(path)}),
    "another checkpoint": lambda path: of_torch([1, 2]),
    "a state without parts": lambda path: of_torch({"step": 3}),
    "a bomb": lambda path: compressed(of_torch({"model": torch.ones(2)})),
    "other tensors": lambda path: save({"weight": torch.ones(2)}),
    "JSON": lambda path: b'{"kind": []}',
    "a batch of something else": lambda path: save(
        {OTHERS: torch.tensor(list(b'{"seconds": []}'), dtype=torch.uint8), "self": torch.ones(1)}
    ),
    "deep nesting": lambda path: save({OTHERS: torch.tensor([ord("[")] * 100_000, dtype=torch.uint8)}),
    "no text": lambda path: save({OTHERS: torch.ones(3, 3)}),
    "a huge tensor": lambda path: header(
        b'{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,8]}}', bytes(8)
    ),
    "a long header": lambda path: header(b"")[:-8] + (2**62).to_bytes(8, "little"),
}

BATCH = Batch(torch.ones(1, 64), torch.ones(1), torch.ones(1), torch.ones(1, 1, 2, 2).byte(), 1.0, 0.5, 0.3, "run")
POINT = Point("full", "full", FullRefresh())


@pytest.fixture(params=CONTENTS)
def content(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """What a stranger wrote; it has not run at the end."""
    marker = tmp_path / "executed"
    yield CONTENTS[request.param](marker)
    assert not marker.exists()


def test_a_batch_that_is_none_is_generated_again(tmp_path: Path, content: bytes) -> None:
    folder = Folder(tmp_path / "out", {"a": 1})
    folder.claim(POINT)
    write_sealed(folder.batch_file(POINT, 0), content)
    with pytest.raises(CheckpointError, match="is damaged"):
        folder.read_batch(POINT, 0)
    with pytest.warns(UserWarning, match="computed again"):
        assert not folder.has_batch(POINT, 0)
    folder.write_batch(POINT, 0, BATCH)
    assert folder.read_batch(POINT, 0).seconds == 1.0


@pytest.mark.parametrize(
    "values", [{}, {"by_step": 3, "flops_ratio": 1}, {"by_step": ["a"], "flops_ratio": 1}, {"by_step": []}]
)
def test_a_drift_that_is_none_is_measured_again(tmp_path: Path, values: Any) -> None:
    folder = Folder(tmp_path / "out", {"a": 1})
    folder.claim(POINT)
    write_sealed_json(folder.drift_file(POINT), values)
    with pytest.raises(CheckpointError, match="is damaged"):
        folder.read_drift(POINT)
    folder.write_drift(POINT, Drift((0.5,), 0.25))
    assert folder.read_drift(POINT) == Drift((0.5,), 0.25)


SETTINGS = {"a list": b"[1]", "a number": b"3", "deep": b"[" * 100_000, "text": b"a", "nothing": b"", "null": b"null"}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_are_none_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / SETTINGS_FILE).write_bytes(SETTINGS[name])
    with pytest.raises((CheckpointError, ArgumentError), match=r"cannot be read|another evaluation"):
        Folder(tmp_path, {"a": 1})
    folder = Folder(tmp_path / "out", {"a": 1})
    folder.claim(POINT)
    (tmp_path / "out" / POINT.folder / "policy.json").write_bytes(SETTINGS[name])
    with pytest.raises((CheckpointError, ArgumentError), match=r"cannot be read|another evaluation"):
        folder.claim(POINT)


@pytest.mark.parametrize("line", ["3", "{}", "[]", "a", "[" * 100_000, json.dumps({"self": 1}), '{"loop": []}'])
def test_lines_that_are_none_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "lines.jsonl").write_text(line + "\n")
    with pytest.raises(CheckpointError, match="is damaged"):
        Lines(tmp_path / "lines.jsonl")


def test_a_measurement_that_is_none_is_made_again(tmp_path: Path, content: bytes) -> None:
    Notebook(tmp_path / "out", {"a": 1}).measured("stage", "name", lambda: numbers(loss=0.5))
    (file,) = (tmp_path / "out").glob("*.safetensors")
    write_sealed(file, content)
    try:
        whole = set(torch_names(content))
    except Exception:
        whole = set()
    notebook = Notebook(tmp_path / "out", {"a": 1})
    if whole:
        # Tensors of others are tensors; nothing is run.
        assert {*notebook.measured("stage", "name", lambda: numbers(loss=0.5))} == whole
        return
    with pytest.warns(UserWarning, match="is damaged and not used"):
        assert notebook.measured("stage", "name", lambda: numbers(loss=0.5))["loss"] == 0.5


def torch_names(content: bytes) -> list[str]:
    from safetensors.torch import load

    return [*load(content)]


def test_a_training_state_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    for name in (STATE_FILE, EARLIER_FILE):
        write_sealed(tmp_path / name, content)
    with pytest.raises(TrainingError, match="are damaged or no training state"):
        last_state(tmp_path)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_checkpoint_that_is_none_is_refused(tmp_path: Path, content: bytes, ending: str) -> None:
    path, model = tmp_path / f"weights.{ending}", nn.Linear(2, 2)
    before = {name: own.clone() for name, own in model.state_dict().items()}
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_checkpoint(model, path)
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())


def test_a_compressed_archive_is_refused_before_any_of_it_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(compressed(of_torch({"weight": torch.ones(2)})))
    with pytest.raises(CheckpointError, match="is a compressed archive"):
        load_checkpoint(nn.Linear(2, 2), tmp_path / "weights.pth")

"""Shares on disk: whole or not there, and of one run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marche_fx import ArgumentError, CheckpointError
from marche_fx.sampling.folder import Folder
from marche_fx.saving.locks import held_folder


def folder(path: Path, **manifest: object) -> Folder:
    found = Folder(path, {"count": 4, **manifest})
    found.make()
    found.check()
    return found


def write(own: Folder, index: int = 0, content: bytes = b"image") -> None:
    own.write(index, range(2), [("images/a", content)], seconds=1.0, rank=0, run="run")


def test_a_share_that_was_written_is_there_for_the_next_run(tmp_path: Path) -> None:
    write(folder(tmp_path))
    again = folder(tmp_path)
    assert again.has(0)
    assert not again.has(1)
    assert again.images(again.record(0)) == [b"image"]


@pytest.mark.parametrize("name", ["images/a", "shares/000000.json"])
@pytest.mark.parametrize("content", [b"", b"imagE", b'{"kind": []}', None])
def test_what_is_damaged_is_told_and_made_again(tmp_path: Path, name: str, content: bytes | None) -> None:
    own = folder(tmp_path)
    write(own)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    if content is None and name.startswith("shares"):
        assert not own.has(0), "which is what a kill leaves"
        return
    with pytest.warns(UserWarning, match="missing or damaged"):
        assert not own.has(0)


def test_a_folder_of_another_run_is_refused_by_what_differs(tmp_path: Path) -> None:
    folder(tmp_path, seed=0)
    with pytest.raises(ArgumentError, match=r"seed was 0 and is 1\. Choose another folder"):
        folder(tmp_path, seed=1)


@pytest.mark.parametrize("content", ["", "{", '{"count": 4}', '{"kind": []}', "[]"])
def test_a_manifest_that_says_nothing_is_refused(tmp_path: Path, content: str) -> None:
    folder(tmp_path)
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(CheckpointError, match="Choose another folder"):
        folder(tmp_path)


def test_images_of_no_run_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(ArgumentError, match=r"has images and no manifest\.json"):
        folder(tmp_path)
    assert [own.name for own in tmp_path.iterdir()] == ["images"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ArgumentError, match="cannot be written"):
            folder(path)


def test_what_a_kill_left_half_written_is_removed(tmp_path: Path) -> None:
    own = folder(tmp_path)
    write(own)
    partial = tmp_path / "images" / "b.1-2.partial"
    partial.touch()
    folder(tmp_path).remove_half_written()
    assert not partial.exists()
    assert own.has(0)


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    first, second = (held_folder(tmp_path, "sampling") for _ in range(2))
    with first, pytest.raises(ArgumentError, match=r"in use by .* sampling since"), second:
        pass
    with held_folder(tmp_path, "sampling"):
        """Free again."""


def test_a_record_is_plain_json(tmp_path: Path) -> None:
    write(folder(tmp_path))
    found = json.loads((tmp_path / "shares" / "000000.json").read_text())
    assert (found["first"], found["count"], list(found["files"])) == (0, 2, ["images/a"])
